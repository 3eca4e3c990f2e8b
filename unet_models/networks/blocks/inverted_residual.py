"""Inverted residuals: expand, filter each channel, project without activation (MobileNetV2, Sandler 2018)."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor, nn

from unet_models.networks.layers import (
    CONV,
    DROPOUT,
    Blocks,
    Stride,
    build_activation,
    build_depthwise,
    build_norm,
    expanded,
    is_one,
)
from unet_models.specs.networks import UNetSpec


class Block(nn.Module):
    """Inverted residual of ``spec.expansion``; a shortcut where neither channels nor resolution change."""

    def __init__(self, spec: UNetSpec, ndim: int, in_channels: int, out_channels: int, stride: Stride = 1) -> None:
        super().__init__()
        hidden = expanded(spec, in_channels)
        self.convs = nn.Sequential(
            CONV[ndim](in_channels, hidden, 1, bias=False),
            build_norm(spec, ndim, hidden),
            build_activation(spec),
            build_depthwise(spec, ndim, hidden, stride, bias=False),
            build_norm(spec, ndim, hidden),
            build_activation(spec),
            CONV[ndim](hidden, out_channels, 1, bias=False),
            build_norm(spec, ndim, out_channels),
            DROPOUT[ndim](spec.dropout) if spec.dropout else nn.Identity(),
        )
        self.has_shortcut = in_channels == out_channels and is_one(stride)

    def forward(self, x: Float[Tensor, "batch in_channels *spatial"]) -> Float[Tensor, "batch out_channels *strided"]:
        """Apply the block."""
        features: Tensor = self.convs(x)
        return x + features if self.has_shortcut else features


class Stage(Blocks):
    """Inverted residuals, the first one strided."""

    block: ClassVar[Callable[..., nn.Module]] = Block
