"""Denoising U-Net of latent diffusion, with attention (Ho 2020; Dhariwal 2021; Rombach 2022).

Attributes have the names that diffusers gives them, since they become the names of the tensors in a checkpoint.
"""

from __future__ import annotations

import torch.nn.functional as F
from jaxtyping import Float, Int, Real
from torch import Tensor, nn

from unet_models.networks.denoiser_blocks import DecoderLevel, EncoderLevel, Middle, TimeEmbedding, zero_weights
from unet_models.specs.networks import DenoiserSpec


class Denoiser(nn.Module):
    """Predict noise, velocity or clean latents from noisy latents, their timesteps and a condition.

    Any latent size works: upsampling goes to the size of the skip. There is a skip connection from the first
    convolution, each residual block of the encoder (with its transformer) and each downsampling; each residual block
    of the decoder takes one, last first. Residual branches and the output start at zero.
    """

    def __init__(self, spec: DenoiserSpec) -> None:
        super().__init__()
        self.spec = spec
        channels = spec.channels
        self.conv_in = nn.Conv2d(spec.in_channels, channels[0], 3, padding=1)
        self.time_embedding = TimeEmbedding(channels[0])
        if spec.num_class_embeds is not None:
            self.class_embedding = nn.Embedding(spec.num_class_embeds, self.time_embedding.width)
        skips = self._build_encoder()
        self.mid_block = Middle(spec, channels[-1])
        self._build_decoder(skips)
        self.conv_norm_out = nn.GroupNorm(spec.num_groups, channels[0])
        self.conv_out = zero_weights(nn.Conv2d(channels[0], spec.out_channels, 3, padding=1))

    def forward(
        self,
        noisy_latents: Float[Tensor, "batch channels height width"],
        timesteps: Real[Tensor, " batch"],
        encoder_hidden_states: Float[Tensor, "batch tokens context"] | None = None,
        class_labels: Int[Tensor, " batch"] | None = None,
    ) -> Float[Tensor, "batch out_channels height width"]:
        """Predict each latent's target at its timestep, an integer or a fraction in the schedule's steps.

        Raises ValueError where ``encoder_hidden_states`` or ``class_labels`` is missing though the spec asks for it,
        or given though it does not, and where a width is not the spec's.
        """
        self._check(noisy_latents, encoder_hidden_states, class_labels)
        condition = self._condition(timesteps, class_labels)
        skips = [self.conv_in(noisy_latents)]
        for level in self.down_blocks:
            skips += level(skips[-1], condition, encoder_hidden_states)  # (B, C_i, H / 2^i, W / 2^i), rounded up
        x = self.mid_block(skips[-1], condition, encoder_hidden_states)
        for level in self.up_blocks:
            own = [skips.pop() for _ in range(self.spec.num_res_blocks + 1)]
            size = skips[-1].shape[2:] if skips else None
            x = level(x, own, condition, encoder_hidden_states, size)
        return self.conv_out(F.silu(self.conv_norm_out(x)))

    def _build_encoder(self) -> list[int]:
        """Build ``down_blocks``; returns the channels of all skip connections, first to last."""
        spec, channels = self.spec, self.spec.channels
        self.down_blocks = nn.ModuleList()
        skips, before = [channels[0]], channels[0]
        for i, width in enumerate(channels):
            has_downsample = i < len(channels) - 1
            self.down_blocks.append(
                EncoderLevel(spec, before, width, has_attention=spec.attention_levels[i], has_downsample=has_downsample)
            )
            skips += [width] * (spec.num_res_blocks + has_downsample)
            before = width
        return skips

    def _build_decoder(self, skips: list[int]) -> None:
        spec, channels = self.spec, self.spec.channels
        self.up_blocks = nn.ModuleList()
        before = channels[-1]
        for i, width in reversed(list(enumerate(channels))):
            own = [skips.pop() for _ in range(spec.num_res_blocks + 1)]
            self.up_blocks.append(
                DecoderLevel(spec, before, own, width, has_attention=spec.attention_levels[i], has_upsample=i > 0)
            )
            before = width

    def _condition(self, timesteps: Tensor, class_labels: Tensor | None) -> Tensor:
        """Compute the condition of all residual blocks, activated once for all of them: (B, 4 * channels[0])."""
        embedding = self.time_embedding(timesteps)
        if class_labels is not None:
            embedding = embedding + self.class_embedding(class_labels)
        return F.silu(embedding)

    def _check(self, noisy_latents: Tensor, context: Tensor | None, class_labels: Tensor | None) -> None:
        spec = self.spec
        if noisy_latents.shape[1] != spec.in_channels:
            raise ValueError(f"in_channels: the spec has {spec.in_channels}, got latents of {noisy_latents.shape[1]}")
        width = None if context is None else context.shape[-1]
        if width != spec.context_dim:
            needed = "no" if spec.context_dim is None else f"(batch, tokens, {spec.context_dim})"
            got = "none" if context is None else tuple(context.shape)
            raise ValueError(
                f"context_dim: the spec has {spec.context_dim}, hence {needed} encoder_hidden_states, got {got}"
            )
        if (class_labels is None) != (spec.num_class_embeds is None):
            needed = "no" if spec.num_class_embeds is None else "(batch,)"
            got = "none" if class_labels is None else tuple(class_labels.shape)
            raise ValueError(
                f"num_class_embeds: the spec has {spec.num_class_embeds}, hence {needed} class_labels, got {got}"
            )
