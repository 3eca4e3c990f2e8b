"""Convolution blocks shared by the U-Nets, for 2 and 3 spatial axes."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unet_models.specs.networks import UNetSpec

Stride = int | tuple[int, ...]

# torch types a size by its number of axes, here it is a tuple for either number: hence Any.
CONV: dict[int, type[Any]] = {2: nn.Conv2d, 3: nn.Conv3d}
CONV_TRANSPOSE: dict[int, type[Any]] = {2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
MAX_POOL = {2: nn.MaxPool2d, 3: nn.MaxPool3d}
BATCH_NORM = {2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
DROPOUT = {2: nn.Dropout2d, 3: nn.Dropout3d}
INTERPOLATION = {2: "bilinear", 3: "trilinear"}
ACTIVATION = {
    "leaky_relu": lambda: nn.LeakyReLU(0.01, inplace=True),
    "relu": lambda: nn.ReLU(inplace=True),
    "gelu": nn.GELU,
    "silu": lambda: nn.SiLU(inplace=True),
}


class InstanceNorm(nn.Module):
    """Instance normalisation with an affine map, for any number of spatial axes (Ulyanov 2016).

    For a batch of one the instance's statistics are the batch's, and ``batch_norm`` computes them without the
    contiguous copy that ``instance_norm`` makes of channels-last features (a tenth of a CPU training step).
    """

    def __init__(self, channels: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, *spatial) -> same shape."""
        if x.shape[0] == 1 and not torch.compiler.is_exporting():
            return F.batch_norm(x, None, None, self.weight, self.bias, training=True, eps=self.eps)
        return F.instance_norm(x, weight=self.weight, bias=self.bias, eps=self.eps)


def build_norm(spec: UNetSpec, ndim: int, channels: int) -> nn.Module:
    """The normalisation layer that ``spec.norm`` names."""
    if spec.norm == "instance":
        return InstanceNorm(channels)
    if spec.norm == "batch":
        return BATCH_NORM[ndim](channels)
    if spec.norm == "group":
        return nn.GroupNorm(math.gcd(8, channels), channels)
    return nn.Identity()


def build_conv(spec: UNetSpec, ndim: int, in_channels: int, out_channels: int, stride: Stride) -> nn.Module:
    """A 3x3(x3) convolution, or its depthwise-separable factorisation (Howard 2017) where the block is light."""
    conv = CONV[ndim]
    if spec.block != "separable" or in_channels == 1:
        return conv(in_channels, out_channels, 3, stride=stride, padding=1)
    return nn.Sequential(
        conv(in_channels, in_channels, 3, stride=stride, padding=1, groups=in_channels, bias=False),
        conv(in_channels, out_channels, 1),
    )


class ConvBlock(nn.Module):
    """conv - norm - activation (- dropout)."""

    def __init__(self, spec: UNetSpec, ndim: int, in_channels: int, out_channels: int, stride: Stride = 1) -> None:
        super().__init__()
        self.conv = build_conv(spec, ndim, in_channels, out_channels, stride)
        self.norm = build_norm(spec, ndim, out_channels)
        self.activation = ACTIVATION[spec.activation]()
        self.dropout = DROPOUT[ndim](spec.dropout) if spec.dropout else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_in, *spatial) -> (B, C_out, *spatial / stride)."""
        return self.dropout(self.activation(self.norm(self.conv(x))))


class Stage(nn.Module):
    """``num_convs`` conv blocks at one resolution; with ``block: residual`` a shortcut around them (He 2016)."""

    def __init__(
        self,
        spec: UNetSpec,
        ndim: int,
        in_channels: int,
        out_channels: int,
        num_convs: int,
        stride: Stride = 1,
    ) -> None:
        super().__init__()
        first = ConvBlock(spec, ndim, in_channels, out_channels, stride)
        rest = [ConvBlock(spec, ndim, out_channels, out_channels) for _ in range(num_convs - 1)]
        self.convs = nn.Sequential(first, *rest)
        self.shortcut: nn.Module | None = None
        if spec.block == "residual":
            changes = in_channels != out_channels or stride != 1
            self.shortcut = CONV[ndim](in_channels, out_channels, 1, stride=stride) if changes else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_in, *spatial) -> (B, C_out, *spatial / stride)."""
        features = self.convs(x)
        return features if self.shortcut is None else features + self.shortcut(x)


class AttentionGate(nn.Module):
    """Additive attention gate on a skip connection (Oktay 2018, eq. 1-2), gated at the skip's own resolution."""

    def __init__(self, ndim: int, channels: int) -> None:
        super().__init__()
        hidden = max(channels // 2, 1)
        self.project_skip = CONV[ndim](channels, hidden, 1, bias=False)
        self.project_gate = CONV[ndim](channels, hidden, 1)
        self.attention = CONV[ndim](hidden, 1, 1)

    def forward(self, skip: Tensor, gate: Tensor) -> Tensor:
        """Two (B, C, *spatial) -> the skip, weighted per voxel by a number in (0, 1)."""
        return skip * torch.sigmoid(self.attention(F.relu(self.project_skip(skip) + self.project_gate(gate))))


class Upsample(nn.Module):
    """To the resolution and channels of the stage above."""

    def __init__(self, spec: UNetSpec, ndim: int, in_channels: int, out_channels: int, stride: tuple[int, ...]) -> None:
        super().__init__()
        self.stride = stride
        self.mode = INTERPOLATION[ndim]
        if spec.upsample == "transposed":
            self.conv = CONV_TRANSPOSE[ndim](in_channels, out_channels, stride, stride=stride, bias=spec.upsample_bias)
        else:
            self.conv = CONV[ndim](in_channels, out_channels, 1)
        self.is_linear = spec.upsample == "linear"

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_in, *spatial) -> (B, C_out, *spatial * stride)."""
        x = self.conv(x)  # linear: project first, on the small grid
        if self.is_linear:
            x = F.interpolate(x, scale_factor=[float(s) for s in self.stride], mode=self.mode, align_corners=False)
        return x
