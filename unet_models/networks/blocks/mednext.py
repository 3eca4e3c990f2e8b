"""ConvNeXt blocks for volumes: a large depthwise kernel, expanded pointwise convolutions (MedNeXt, Roy 2023)."""

from __future__ import annotations

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from unet_models.networks.layers import (
    CONV,
    CONV_TRANSPOSE,
    DROPOUT,
    Stride,
    build_activation,
    build_depthwise,
    build_norm,
    build_projection,
    conv_kernel,
    expanded,
    is_one,
)
from unet_models.specs.networks import UNetSpec


class Stem(nn.Module):
    """1x1 convolution to the channels of the first stage."""

    def __init__(self, spec: UNetSpec, ndim: int, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = CONV[ndim](in_channels, out_channels, 1)

    def forward(self, x: Float[Tensor, "batch in_channels *spatial"]) -> Float[Tensor, "batch out_channels *spatial"]:
        """Apply the convolution."""
        features: Tensor = self.conv(x)
        return features


class Block(nn.Module):
    """Depthwise convolution, normalisation, expansion by ``spec.expansion``, activation, projection; with a shortcut.

    The paper has ``norm: instance`` (one group per channel) and ``activation: gelu``.
    """

    def __init__(self, spec: UNetSpec, ndim: int, in_channels: int, out_channels: int, stride: Stride = 1) -> None:
        super().__init__()
        hidden = expanded(spec, in_channels)
        self.filter = build_depthwise(spec, ndim, in_channels, stride)
        self.norm = build_norm(spec, ndim, in_channels)
        self.expand = CONV[ndim](in_channels, hidden, 1)
        self.activation = build_activation(spec)
        self.project = CONV[ndim](hidden, out_channels, 1)
        self.dropout = DROPOUT[ndim](spec.dropout) if spec.dropout else nn.Identity()
        changes = in_channels != out_channels or not is_one(stride)
        self.shortcut = build_projection(ndim, in_channels, out_channels, stride) if changes else nn.Identity()

    def forward(self, x: Float[Tensor, "batch in_channels *spatial"]) -> Float[Tensor, "batch out_channels *strided"]:
        """Apply the block."""
        return self.mix(self.filter(x)) + self.shortcut(x)

    def mix(self, filtered: Tensor) -> Tensor:
        """Mix the channels of filtered features."""
        mixed: Tensor = self.dropout(self.project(self.activation(self.expand(self.norm(filtered)))))
        return mixed


class Stage(nn.Sequential):
    """MedNeXt blocks, after a strided one where the resolution changes, and a projecting one where channels do."""

    def __init__(
        self, spec: UNetSpec, ndim: int, in_channels: int, out_channels: int, num_blocks: int, stride: Stride = 1
    ) -> None:
        changes = in_channels != out_channels or not is_one(stride)
        first = [Block(spec, ndim, in_channels, out_channels, stride)] if changes else []
        super().__init__(*first, *(Block(spec, ndim, out_channels, out_channels) for _ in range(num_blocks)))


class Upsample(Block):
    """MedNeXt block whose depthwise convolution and shortcut are transposed."""

    def __init__(self, spec: UNetSpec, ndim: int, in_channels: int, out_channels: int, stride: tuple[int, ...]) -> None:
        super().__init__(spec, ndim, in_channels, out_channels)
        kernel, transposed = conv_kernel(spec, ndim), CONV_TRANSPOSE[ndim]
        padding = tuple(size // 2 for size in kernel)
        self.filter = transposed(in_channels, in_channels, kernel, stride, padding=padding, groups=in_channels)
        self.shortcut = transposed(in_channels, out_channels, 1, stride)
        self.missing = [side for s in reversed(stride) for side in (s - 1, 0)]

    def forward(self, x: Float[Tensor, "batch in_channels *coarse"]) -> Float[Tensor, "batch out_channels *fine"]:
        """Multiply each spatial size by its stride: the transposed convolutions lack the first voxels of each axis."""
        return F.pad(super().forward(x), self.missing)
