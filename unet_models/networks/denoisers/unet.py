"""Denoising U-Net of latent diffusion, with attention (Ho 2020; Dhariwal 2021; Rombach 2022).

Attributes have the names that diffusers gives them, since they become the names of the tensors in a checkpoint.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from unet_models.networks.denoiser import Denoiser
from unet_models.networks.denoiser_blocks import DecoderLevel, EncoderLevel, Middle, TimeEmbedding, zero_weights
from unet_models.specs.denoisers import DenoisingUNetSpec


class DenoisingUNet(Denoiser):
    """U-Net with transformers, conditioned on text by cross-attention and on the class by its embedding.

    Any latent size works: upsampling goes to the size of the skip. There is a skip connection from the first
    convolution, each residual block of the encoder (with its transformer) and each downsampling; each residual block
    of the decoder takes one, last first. Residual branches and the output start at zero.
    """

    spec: DenoisingUNetSpec

    def __init__(self, spec: DenoisingUNetSpec) -> None:
        super().__init__(spec)
        channels = spec.channels
        self.conv_in = nn.Conv2d(spec.in_channels, channels[0], 3, padding=1)
        self.time_embedding = TimeEmbedding(channels[0], 4 * channels[0])
        if spec.num_class_embeds is not None:
            self.class_embedding = nn.Embedding(spec.num_class_embeds, self.time_embedding.width)
        skips = self._build_encoder()
        self.mid_block = Middle(spec, channels[-1])
        self._build_decoder(skips)
        self.conv_norm_out = nn.GroupNorm(spec.num_groups, channels[0])
        self.conv_out = zero_weights(nn.Conv2d(channels[0], spec.out_channels, 3, padding=1))

    def predict(
        self, noisy_latents: Tensor, timesteps: Tensor, context: Tensor | None, class_labels: Tensor | None
    ) -> Tensor:
        """Predict from checked inputs, see ``Denoiser.forward``."""
        condition = self._condition(timesteps, class_labels)
        skips = [self.conv_in(noisy_latents)]
        for level in self.down_blocks:
            skips += level(skips[-1], condition, context)  # (B, C_i, H / 2^i, W / 2^i), rounded up
        x = self.mid_block(skips[-1], condition, context)
        for level in self.up_blocks:
            own = [skips.pop() for _ in range(self.spec.num_res_blocks + 1)]
            size = skips[-1].shape[2:] if skips else None
            x = level(x, own, condition, context, size)
        return self.conv_out(F.silu(self.conv_norm_out(x)))

    @property
    def exported_sides(self) -> tuple[int, int]:
        """Return the smallest side of latents that an exported graph takes, and the number that divides its sides."""
        # Smaller latents leave the coarsest level one pixel, which torch specialises on.
        return 2 ** (len(self.spec.channels) - 1) + 1, 1

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
                DecoderLevel(
                    spec,
                    before,
                    own,
                    width,
                    kind=spec.skips[i],
                    has_attention=spec.attention_levels[i],
                    has_upsample=i > 0,
                )
            )
            before = width

    def _condition(self, timesteps: Tensor, class_labels: Tensor | None) -> Tensor:
        """Compute the condition of all residual blocks, activated once for all of them: (B, 4 * channels[0])."""
        embedding = self.time_embedding(timesteps)
        if class_labels is not None:
            embedding = embedding + self.class_embedding(class_labels)
        return F.silu(embedding)
