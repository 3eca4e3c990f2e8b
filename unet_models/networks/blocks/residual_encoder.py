"""Residual blocks of nnU-Net's residual encoder (He 2016 with the shortcut of ResNet-D, He 2019; Isensee 2024)."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor, nn

from unet_models.networks.layers import (
    Blocks,
    ConvBlock,
    Stride,
    build_activation,
    build_conv,
    build_norm,
    build_shortcut,
)
from unet_models.specs.networks import UNetSpec

Stem = ConvBlock


class Block(nn.Module):
    """Two convolutions; the shortcut averages where the block strides, and projects where channels change."""

    def __init__(self, spec: UNetSpec, ndim: int, in_channels: int, out_channels: int, stride: Stride = 1) -> None:
        super().__init__()
        self.conv1 = ConvBlock(spec, ndim, in_channels, out_channels, stride)
        self.conv2 = build_conv(spec, ndim, out_channels, out_channels)
        self.norm2 = build_norm(spec, ndim, out_channels)
        self.activation = build_activation(spec)
        self.shortcut = build_shortcut(spec, ndim, in_channels, out_channels, stride)

    def forward(self, x: Float[Tensor, "batch in_channels *spatial"]) -> Float[Tensor, "batch out_channels *strided"]:
        """Apply the block; its stride must divide each spatial size."""
        return self.activation(self.norm2(self.conv2(self.conv1(x))) + self.shortcut(x))


class Stage(Blocks):
    """Residual blocks, the first one strided."""

    block: ClassVar[Callable[..., nn.Module]] = Block
