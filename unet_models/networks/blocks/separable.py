"""Depthwise-separable convolutions: a filter per channel, then a 1x1 convolution (MobileNet, Howard 2017)."""

from __future__ import annotations

from torch import nn

from unet_models.networks.blocks import plain
from unet_models.networks.layers import CONV, Stride, build_conv, build_depthwise
from unet_models.specs.networks import UNetSpec


class Stage(plain.Stage):
    """Separable convolution blocks, the first one strided."""

    @staticmethod
    def build_conv(spec: UNetSpec, ndim: int, in_channels: int, out_channels: int, stride: Stride = 1) -> nn.Module:
        """Build one separable convolution; of a single channel there is nothing to separate."""
        if in_channels == 1:
            return build_conv(spec, ndim, in_channels, out_channels, stride)
        return nn.Sequential(
            build_depthwise(spec, ndim, in_channels, stride, bias=False), CONV[ndim](in_channels, out_channels, 1)
        )
