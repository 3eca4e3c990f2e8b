"""Time embedding of the denoisers; residual blocks and levels of the denoising U-Net.

Attributes have the names that diffusers gives them, since they become the names of the tensors in a checkpoint.
"""

from __future__ import annotations

import math
from typing import TypeVar

import torch
import torch.nn.functional as F
from jaxtyping import Float, Real
from torch import Tensor, nn

from unet_models.networks.attention import SpatialTransformer
from unet_models.networks.denoiser import run_block
from unet_models.networks.skips import AttentionGate
from unet_models.specs.denoisers import DenoisingUNetSpec, LongSkip


def sinusoids(timesteps: Real[Tensor, " batch"], width: int) -> Float[Tensor, "batch width"]:
    """Compute cosines, then sines, of timesteps at wavelengths from 2 pi to 10,000 times that.

    Positional encoding of Vaswani 2017, as Ho 2020 uses it for timesteps.
    """
    half = width // 2
    exponents = torch.arange(half, device=timesteps.device, dtype=torch.float32) / half
    angles = timesteps.float()[:, None] * torch.exp(-math.log(10_000) * exponents)
    return F.pad(torch.cat([angles.cos(), angles.sin()], dim=-1), (0, width % 2))


class TimeEmbedding(nn.Module):
    """``channels`` sinusoids of a timestep, mapped by a network of two layers of ``width``."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.channels, self.width = channels, width
        self.linear_1 = nn.Linear(channels, self.width)
        self.linear_2 = nn.Linear(self.width, self.width)

    def forward(self, timesteps: Real[Tensor, " batch"]) -> Float[Tensor, "batch width"]:
        # Angles need float32: bfloat16 cannot tell step 999 from 1000.
        embedding = sinusoids(timesteps, self.channels).to(self.linear_1.weight.dtype)
        return self.linear_2(F.silu(self.linear_1(embedding)))


class ResidualBlock(nn.Module):
    """Normalisation, activation and convolution, twice, on a shortcut; conditioned at the second normalisation.

    ``additive`` adds a projection of the condition to the features before it (Ho 2020), ``film`` scales and shifts
    the normalised features after it (Perez 2018; Dhariwal 2021, eq. 2).
    """

    def __init__(self, spec: DenoisingUNetSpec, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.film = spec.time_conditioning == "film"
        self.norm1 = nn.GroupNorm(spec.num_groups, in_channels)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.time_emb_proj = nn.Linear(4 * spec.channels[0], out_channels * (2 if self.film else 1))
        self.norm2 = nn.GroupNorm(spec.num_groups, out_channels)
        self.dropout = nn.Dropout(spec.dropout)
        self.conv2 = zero_weights(nn.Conv2d(out_channels, out_channels, 3, padding=1))
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
    """Halve height and width, rounded up, by a convolution of stride 2."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2, padding=1)

    def forward(self, x: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch channels half_h half_w"]:
        return self.conv(x)


class Upsample(nn.Module):
    """Upsample to a given size by nearest-neighbour interpolation, then convolve."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(
        self, x: Float[Tensor, "batch channels half_h half_w"], size: torch.Size
    ) -> Float[Tensor, "batch channels height width"]:
        return self.conv(F.interpolate(x, size=size, mode="nearest"))


class Level(nn.Module):
    """Residual blocks at one resolution, with a transformer after each of the first ``num_attentions``."""

    def __init__(self, spec: DenoisingUNetSpec, in_channels: list[int], width: int, num_attentions: int) -> None:
        super().__init__()
        self.gradient_checkpointing = spec.gradient_checkpointing
        self.resnets = nn.ModuleList(ResidualBlock(spec, before, width) for before in in_channels)
        self.attentions = nn.ModuleList(
            SpatialTransformer(width, spec.num_heads, spec.num_transformer_blocks, spec.context_dim, spec.num_groups)
            for _ in range(num_attentions)
        )

    def step(self, index: int, x: Tensor, condition: Tensor, context: Tensor | None) -> Tensor:
        """Apply residual block number ``index``, and the transformer after it where there is one."""
        x = self._run(self.resnets[index], x, condition)
        return self._run(self.attentions[index], x, context) if index < len(self.attentions) else x

    def _run(self, block: nn.Module, *inputs: Tensor | None) -> Tensor:
        return run_block(block, *inputs, recompute=self.gradient_checkpointing)


class EncoderLevel(Level):
    """Level of the encoder: returns the features of the skip connections."""

    def __init__(
        self, spec: DenoisingUNetSpec, before: int, width: int, *, has_attention: bool, has_downsample: bool
    ) -> None:
        num = spec.num_res_blocks
        super().__init__(spec, [before] + [width] * (num - 1), width, num if has_attention else 0)
        self.downsamplers = nn.ModuleList([Downsample(width)] if has_downsample else [])

    def forward(
        self,
        x: Float[Tensor, "batch before height width"],
        condition: Float[Tensor, "batch condition"],
        context: Float[Tensor, "batch tokens source"] | None,
    ) -> list[Tensor]:
        """Compute the features after each residual block (with its transformer) and after the downsampling."""
        features = []
        for index in range(len(self.resnets)):
            x = self.step(index, x, condition, context)
            features.append(x)
        return features + [downsample(x) for downsample in self.downsamplers]


class Middle(Level):
    """Residual block, transformer and residual block at the lowest resolution."""

    def __init__(self, spec: DenoisingUNetSpec, width: int) -> None:
        super().__init__(spec, [width, width], width, num_attentions=1)

    def forward(
        self,
        x: Float[Tensor, "batch width height width_px"],
        condition: Float[Tensor, "batch condition"],
        context: Float[Tensor, "batch tokens source"] | None,
    ) -> Float[Tensor, "batch width height width_px"]:
        for index in range(len(self.resnets)):
            x = self.step(index, x, condition, context)
        return x


class DecoderLevel(Level):
    """Level of the decoder: joins one skip connection before each residual block, then upsamples.

    Without skip connections the residual blocks take the decoder's features alone.
    """

    def __init__(
        self,
        spec: DenoisingUNetSpec,
        before: int,
        skips: list[int],
        width: int,
        *,
        kind: LongSkip,
        has_attention: bool,
        has_upsample: bool,
    ) -> None:
        inputs = [before] + [width] * (len(skips) - 1)
        joined = inputs if kind == "none" else [x + skip for x, skip in zip(inputs, skips, strict=True)]
        super().__init__(spec, joined, width, len(skips) if has_attention else 0)
        self.kind = kind
        if kind == "gated":
            self.gates = nn.ModuleList(AttentionGate(2, skip, x, (1, 1)) for x, skip in zip(inputs, skips, strict=True))
        self.upsamplers = nn.ModuleList([Upsample(width)] if has_upsample else [])

    def forward(
        self,
        x: Float[Tensor, "batch before height width"],
        skips: list[Tensor],
        condition: Float[Tensor, "batch condition"],
        context: Float[Tensor, "batch tokens source"] | None,
        size: torch.Size | None,
    ) -> Float[Tensor, "batch channels out_height out_width"]:
        """Apply the level; ``size`` is that of the next finer level, None at the finest."""
        for index, skip in enumerate(skips):
            if self.kind == "gated":
                skip = self.gates[index](skip, x)
            x = self.step(index, x if self.kind == "none" else torch.cat([x, skip], dim=1), condition, context)
        for upsample in self.upsamplers:
            x = upsample(x, size)
        return x


Layer = TypeVar("Layer", bound=nn.Module)


def zero_weights(layer: Layer) -> Layer:
    """Set weights and bias to zero, so that the branch of ``layer`` contributes nothing at first (Dhariwal 2021)."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer
