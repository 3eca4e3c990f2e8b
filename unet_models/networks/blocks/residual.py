"""Convolutions with one shortcut around those of a stage (He 2016; ResUNet, Zhang 2018)."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn

from unet_models.networks.blocks import plain
from unet_models.networks.layers import Stride, build_projection, is_one
from unet_models.specs.networks import UNetSpec


class Stage(plain.Stage):
    """Convolution blocks and a shortcut: a strided 1x1 convolution where channels or resolution change."""

    def __init__(
        self, spec: UNetSpec, ndim: int, in_channels: int, out_channels: int, num_blocks: int, stride: Stride = 1
    ) -> None:
        super().__init__(spec, ndim, in_channels, out_channels, num_blocks, stride)
        changes = in_channels != out_channels or not is_one(stride)
        self.shortcut = build_projection(ndim, in_channels, out_channels, stride) if changes else nn.Identity()

    def forward(self, x: Float[Tensor, "batch in_channels *spatial"]) -> Float[Tensor, "batch out_channels *strided"]:
        """Apply the stage."""
        return self.convs(x) + self.shortcut(x)
