"""Grouped pointwise convolutions with a channel shuffle between them (ShuffleNet, Zhang 2018)."""

from __future__ import annotations

import math
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
    build_shortcut,
)
from unet_models.specs.networks import UNetSpec


class ChannelShuffle(nn.Module):
    """Deals the channels of each group out to all groups, so that the next grouped convolution mixes them."""

    def __init__(self, groups: int) -> None:
        super().__init__()
        self.groups = groups

    def forward(self, x: Float[Tensor, "batch channels *spatial"]) -> Float[Tensor, "batch channels *spatial"]:
        """Move channel ``(group g, number i)`` to ``(group i, number g)``."""
        return x.unflatten(1, (self.groups, -1)).transpose(1, 2).flatten(1, 2)


class Block(nn.Module):
    """ShuffleNet unit of ``spec.groups`` groups, or of as many as divide the channels.

    The paper's strided unit appends the averaged input to its output. A decoder narrows where that would widen, so the
    shortcut is projected here, wherever channels change.
    """

    def __init__(self, spec: UNetSpec, ndim: int, in_channels: int, out_channels: int, stride: Stride = 1) -> None:
        super().__init__()
        hidden = max(out_channels // 4, 1)
        before, after = (math.gcd(spec.groups, math.gcd(hidden, side)) for side in (in_channels, out_channels))
        self.convs = nn.Sequential(
            CONV[ndim](in_channels, hidden, 1, groups=before, bias=False),
            build_norm(spec, ndim, hidden),
            build_activation(spec),
            ChannelShuffle(before),
            build_depthwise(spec, ndim, hidden, stride, bias=False),
            build_norm(spec, ndim, hidden),
            CONV[ndim](hidden, out_channels, 1, groups=after, bias=False),
            build_norm(spec, ndim, out_channels),
            DROPOUT[ndim](spec.dropout) if spec.dropout else nn.Identity(),
        )
        self.shortcut = build_shortcut(spec, ndim, in_channels, out_channels, stride)
        self.activation = build_activation(spec)

    def forward(self, x: Float[Tensor, "batch in_channels *spatial"]) -> Float[Tensor, "batch out_channels *strided"]:
        """Apply the block; its stride must divide each spatial size."""
        return self.activation(self.convs(x) + self.shortcut(x))


class Stage(Blocks):
    """ShuffleNet units, the first one strided."""

    block: ClassVar[Callable[..., nn.Module]] = Block
