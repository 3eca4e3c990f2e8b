"""The noise predictor of latent diffusion: a U-Net with attention (Ho 2020; Dhariwal 2021; Rombach 2022).

Attributes bear the names diffusers gives them, since they become the names of the tensors in a checkpoint.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, Real
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from unet_models.networks.attention import SpatialTransformer
from unet_models.specs.networks import DenoiserSpec


class Denoiser(nn.Module):
    """Noisy latents, their timesteps and what they should show -> the prediction (noise, velocity or sample).

    Any latent size works: up-sampling goes to the size of the skip. There is a skip after the first convolution, after
    each residual block of the encoder (with its transformer) and after each down-sampling; each residual block of the
    decoder takes one, last first. Residual branches and the output start at zero.
    """

    def __init__(self, spec: DenoiserSpec) -> None:
        super().__init__()
        self.spec = spec
        channels, last = spec.channels, len(spec.channels) - 1
        self.conv_in = nn.Conv2d(spec.in_channels, channels[0], 3, padding=1)
        self.time_embedding = TimeEmbedding(channels[0])
        if spec.num_class_embeds is not None:
            self.class_embedding = nn.Embedding(spec.num_class_embeds, self.time_embedding.width)

        self.down_blocks = nn.ModuleList()
        skips, before = [channels[0]], channels[0]
        for i, width in enumerate(channels):
            self.down_blocks.append(EncoderLevel(spec, before, width, spec.attention_levels[i], downsample=i < last))
            skips += [width] * (spec.num_res_blocks + (i < last))
            before = width

        self.mid_block = Middle(spec, before)

        self.up_blocks = nn.ModuleList()
        for i in range(last, -1, -1):
            own = [skips.pop() for _ in range(spec.num_res_blocks + 1)]
            self.up_blocks.append(
                DecoderLevel(spec, before, own, channels[i], spec.attention_levels[i], upsample=i > 0)
            )
            before = channels[i]

        self.conv_norm_out = nn.GroupNorm(spec.num_groups, channels[0])
        self.conv_out = _zeroed(nn.Conv2d(channels[0], spec.out_channels, 3, padding=1))

    def forward(
        self,
        noisy_latents: Float[Tensor, "batch channels height width"],
        timesteps: Real[Tensor, " batch"],
        encoder_hidden_states: Float[Tensor, "batch tokens context"] | None = None,
        class_labels: Int[Tensor, " batch"] | None = None,
    ) -> Float[Tensor, "batch out_channels height width"]:
        """The prediction for each latent at its timestep, an integer or a fraction in the schedule's steps.

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

    def _condition(self, timesteps: Tensor, class_labels: Tensor | None) -> Tensor:
        """What every residual block is told, activated once for all of them: (B, 4 * channels[0])."""
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


# --- Conditioning ----------------------------------------------------------------------------------------------------


def sinusoids(timesteps: Real[Tensor, " batch"], width: int) -> Float[Tensor, "batch width"]:
    """Cosines, then sines, of a timestep at wavelengths from 2 pi to 10,000 times that (Vaswani 2017; Ho 2020)."""
    half = width // 2
    exponents = torch.arange(half, device=timesteps.device, dtype=torch.float32) / half
    angles = timesteps.float()[:, None] * torch.exp(-math.log(10_000) * exponents)
    return F.pad(torch.cat([angles.cos(), angles.sin()], dim=-1), (0, width % 2))


class TimeEmbedding(nn.Module):
    """The sinusoids of a timestep through a network of two layers, four times as wide as the first level."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels, self.width = channels, 4 * channels
        self.linear_1 = nn.Linear(channels, self.width)
        self.linear_2 = nn.Linear(self.width, self.width)

    def forward(self, timesteps: Real[Tensor, " batch"]) -> Float[Tensor, "batch width"]:
        # Angles need float32: bfloat16 cannot tell step 999 from 1000.
        embedding = sinusoids(timesteps, self.channels).to(self.linear_1.weight.dtype)
        return self.linear_2(F.silu(self.linear_1(embedding)))


# --- Blocks ----------------------------------------------------------------------------------------------------------


class ResidualBlock(nn.Module):
    """norm-act-conv twice on a shortcut; the condition enters before, or modulates, the second normalisation.

    ``additive`` adds a projection of it to the features (Ho 2020), ``film`` scales and shifts the normalised features
    (Perez 2018; Dhariwal 2021, eq. 2).
    """

    def __init__(self, spec: DenoiserSpec, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.film = spec.time_conditioning == "film"
        self.norm1 = nn.GroupNorm(spec.num_groups, in_channels)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.time_emb_proj = nn.Linear(4 * spec.channels[0], out_channels * (2 if self.film else 1))
        self.norm2 = nn.GroupNorm(spec.num_groups, out_channels)
        self.dropout = nn.Dropout(spec.dropout)
        self.conv2 = _zeroed(nn.Conv2d(out_channels, out_channels, 3, padding=1))
        self.conv_shortcut = nn.Conv2d(in_channels, out_channels, 1) if in_channels != out_channels else nn.Identity()

    def forward(
        self, x: Float[Tensor, "batch in_channels height width"], condition: Float[Tensor, "batch condition"]
    ) -> Float[Tensor, "batch out_channels height width"]:
        features = self.conv1(F.silu(self.norm1(x)))
        projected = self.time_emb_proj(condition)[:, :, None, None]
        if self.film:
            scale, shift = projected.chunk(2, dim=1)
            features = self.norm2(features) * (1 + scale) + shift
        else:
            features = self.norm2(features + projected)
        return self.conv_shortcut(x) + self.conv2(self.dropout(F.silu(features)))


class Downsample(nn.Module):
    """Half the size, rounded up: a convolution of stride 2."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2, padding=1)

    def forward(self, x: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch channels half_h half_w"]:
        return self.conv(x)


class Upsample(nn.Module):
    """To a given size: the nearest pixel, then a convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(
        self, x: Float[Tensor, "batch channels half_h half_w"], size: torch.Size
    ) -> Float[Tensor, "batch channels height width"]:
        return self.conv(F.interpolate(x, size=size, mode="nearest"))


class Level(nn.Module):
    """Residual blocks at one resolution, a transformer after each of the first ``num_attentions``."""

    def __init__(self, spec: DenoiserSpec, in_channels: list[int], width: int, num_attentions: int) -> None:
        super().__init__()
        self.recomputes = spec.gradient_checkpointing
        self.resnets = nn.ModuleList(ResidualBlock(spec, before, width) for before in in_channels)
        self.attentions = nn.ModuleList(
            SpatialTransformer(width, spec.num_heads, spec.num_transformer_blocks, spec.context_dim, spec.num_groups)
            for _ in range(num_attentions)
        )

    def step(self, index: int, x: Tensor, condition: Tensor, context: Tensor | None) -> Tensor:
        """Residual block number ``index`` and the transformer after it, if there is one."""
        x = self._run(self.resnets[index], x, condition)
        return self._run(self.attentions[index], x, context) if index < len(self.attentions) else x

    def _run(self, block: nn.Module, *inputs: Tensor | None) -> Tensor:
        if self.recomputes and self.training:
            return checkpoint(block, *inputs, use_reentrant=False)
        return block(*inputs)


class EncoderLevel(Level):
    """Returns the features after each residual block and after the down-sampling: the skips."""

    def __init__(self, spec: DenoiserSpec, before: int, width: int, attends: bool, downsample: bool) -> None:
        num = spec.num_res_blocks
        super().__init__(spec, [before] + [width] * (num - 1), width, num if attends else 0)
        self.downsamplers = nn.ModuleList([Downsample(width)] if downsample else [])

    def forward(self, x: Tensor, condition: Tensor, context: Tensor | None) -> list[Tensor]:
        features = []
        for index in range(len(self.resnets)):
            x = self.step(index, x, condition, context)
            features.append(x)
        return features + [downsample(x) for downsample in self.downsamplers]


class Middle(Level):
    """A residual block, a transformer, a residual block at the lowest resolution."""

    def __init__(self, spec: DenoiserSpec, width: int) -> None:
        super().__init__(spec, [width, width], width, num_attentions=1)

    def forward(self, x: Tensor, condition: Tensor, context: Tensor | None) -> Tensor:
        for index in range(len(self.resnets)):
            x = self.step(index, x, condition, context)
        return x


class DecoderLevel(Level):
    """Joins one skip before each residual block, then goes up to the size of the level above."""

    def __init__(
        self, spec: DenoiserSpec, before: int, skips: list[int], width: int, attends: bool, upsample: bool
    ) -> None:
        inputs = [before] + [width] * (len(skips) - 1)
        joined = [x + skip for x, skip in zip(inputs, skips, strict=True)]
        super().__init__(spec, joined, width, len(skips) if attends else 0)
        self.upsamplers = nn.ModuleList([Upsample(width)] if upsample else [])

    def forward(
        self, x: Tensor, skips: list[Tensor], condition: Tensor, context: Tensor | None, size: torch.Size | None
    ) -> Tensor:
        for index, skip in enumerate(skips):
            x = self.step(index, torch.cat([x, skip], dim=1), condition, context)
        for upsample in self.upsamplers:
            x = upsample(x, size)
        return x


def _zeroed(conv: nn.Conv2d) -> nn.Conv2d:
    """The same with weights and bias zero: a branch that starts out silent (Dhariwal 2021)."""
    for parameter in conv.parameters():
        nn.init.zeros_(parameter)
    return conv
