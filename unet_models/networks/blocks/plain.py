"""Plain convolutions: convolution, normalisation, activation (Ronneberger 2015)."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn

from unet_models.networks.layers import ConvBlock, Stride, build_conv
from unet_models.specs.networks import UNetSpec


class Stage(nn.Module):
    """Convolution blocks, the first one strided."""

    @staticmethod
    def build_conv(spec: UNetSpec, ndim: int, in_channels: int, out_channels: int, stride: Stride = 1) -> nn.Module:
        """Build one convolution."""
        return build_conv(spec, ndim, in_channels, out_channels, stride)

    def __init__(
        self, spec: UNetSpec, ndim: int, in_channels: int, out_channels: int, num_blocks: int, stride: Stride = 1
    ) -> None:
        super().__init__()
        first = ConvBlock(spec, ndim, in_channels, out_channels, stride, self.build_conv)
        rest = (ConvBlock(spec, ndim, out_channels, out_channels, build=self.build_conv) for _ in range(num_blocks - 1))
        self.convs = nn.Sequential(first, *rest)

    def forward(self, x: Float[Tensor, "batch in_channels *spatial"]) -> Float[Tensor, "batch out_channels *strided"]:
        """Apply the stage."""
        features: Tensor = self.convs(x)
        return features
