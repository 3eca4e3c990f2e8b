"""Layers of the segmentation networks, for 2 and 3 spatial axes, and what all of these networks have in common."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from unet_models.specs.networks import UNetSpec, per_axis

Stride = int | tuple[int, ...]
BuildConv = Callable[[UNetSpec, int, int, int, Stride], nn.Module]
"""Builds a convolution from spec, number of axes, input channels, output channels and stride."""

# torch types a size by its number of axes, here it is a tuple for either number: hence Any.
CONV: dict[int, type[Any]] = {2: nn.Conv2d, 3: nn.Conv3d}
CONV_TRANSPOSE: dict[int, type[Any]] = {2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
MAX_POOL = {2: nn.MaxPool2d, 3: nn.MaxPool3d}
AVG_POOL: dict[int, type[Any]] = {2: nn.AvgPool2d, 3: nn.AvgPool3d}
BATCH_NORM = {2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
DROPOUT = {2: nn.Dropout2d, 3: nn.Dropout3d}
INTERPOLATION = {2: "bilinear", 3: "trilinear"}


class SegmentationNetwork(nn.Module):
    """Base of the segmentation networks: images ``(B, C, *spatial)`` to logits ``(B, K, *spatial)``.

    Padded networks take any size. Those with valid convolutions lose ``border`` voxels on each side.
    """

    ndim: int
    """Number of spatial axes."""
    divisor: tuple[int, ...]
    """Product of the strides of each axis: a size that it divides is not padded."""
    border: tuple[int, ...]
    """Voxels of each axis by which the logits are smaller than the image, on either side; 0 for padded networks."""
    remainder: tuple[int, ...]
    """What the sizes that unpadded networks take leave when divided by ``divisor``; 0 for padded networks."""


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

    def forward(self, x: Float[Tensor, "batch channels *spatial"]) -> Float[Tensor, "batch channels *spatial"]:
        """Normalise each channel of each sample over its spatial axes."""
        if x.shape[0] == 1 and not torch.compiler.is_exporting():
            return F.batch_norm(x, None, None, self.weight, self.bias, training=True, eps=self.eps)
        return F.instance_norm(x, weight=self.weight, bias=self.bias, eps=self.eps)


class _Subsampling:
    """1x1 convolution of every ``stride``-th voxel: what a strided one computes, with its weights.

    Strided ones in channels-last format have wrong weight gradients on CPUs without AVX-512, and write beyond their
    buffer, where a 2-D image has fewer than 8 channels (uxlfoundation/oneDNN issue 6035).
    """

    def __init__(self, in_channels: int, out_channels: int, stride: tuple[int, ...]) -> None:
        super().__init__(in_channels, out_channels, 1)  # type: ignore[call-arg]
        self.every = tuple(slice(None, None, step) for step in stride)

    def forward(self, x: Float[Tensor, "batch in_channels *spatial"]) -> Float[Tensor, "batch out_channels *strided"]:
        """Apply the convolution."""
        features: Tensor = super().forward(x[:, :, *self.every])  # type: ignore[misc]
        return features


class SubsamplingConv2d(_Subsampling, nn.Conv2d):
    """Strided 1x1 convolution of images."""


class SubsamplingConv3d(_Subsampling, nn.Conv3d):
    """Strided 1x1 convolution of volumes."""


class ConvBlock(nn.Module):
    """Convolution, normalisation, activation, dropout."""

    def __init__(
        self,
        spec: UNetSpec,
        ndim: int,
        in_channels: int,
        out_channels: int,
        stride: Stride = 1,
        build: BuildConv | None = None,
    ) -> None:
        super().__init__()
        self.conv = (build or build_conv)(spec, ndim, in_channels, out_channels, stride)
        self.norm = build_norm(spec, ndim, out_channels)
        self.activation = build_activation(spec)
        self.dropout = DROPOUT[ndim](spec.dropout) if spec.dropout else nn.Identity()

    def forward(self, x: Float[Tensor, "batch in_channels *spatial"]) -> Float[Tensor, "batch out_channels *strided"]:
        """Apply the block; each spatial size is divided by its stride and rounded up."""
        return self.dropout(self.activation(self.norm(self.conv(x))))


class Blocks(nn.Sequential):
    """Blocks of one resolution, the first one strided; a subclass names their type."""

    block: ClassVar[Callable[..., nn.Module]]
    """Class of a block: spec, number of axes, input channels, output channels, stride."""

    def __init__(
        self, spec: UNetSpec, ndim: int, in_channels: int, out_channels: int, num_blocks: int, stride: Stride = 1
    ) -> None:
        first = self.block(spec, ndim, in_channels, out_channels, stride)
        super().__init__(first, *(self.block(spec, ndim, out_channels, out_channels) for _ in range(num_blocks - 1)))


class Upsample(nn.Module):
    """Upsampling to the resolution and channels of the next finer stage."""

    def __init__(self, spec: UNetSpec, ndim: int, in_channels: int, out_channels: int, stride: tuple[int, ...]) -> None:
        super().__init__()
        self.stride = stride
        self.mode = INTERPOLATION[ndim]
        if spec.upsample == "transposed":
            self.conv = CONV_TRANSPOSE[ndim](in_channels, out_channels, stride, stride=stride, bias=spec.upsample_bias)
        else:
            self.conv = CONV[ndim](in_channels, out_channels, 1)
        self.is_linear = spec.upsample == "linear"

    def forward(self, x: Float[Tensor, "batch in_channels *coarse"]) -> Float[Tensor, "batch out_channels *fine"]:
        """Multiply each spatial size by its stride."""
        x = self.conv(x)  # linear: project first, on the small grid
        if self.is_linear:
            x = F.interpolate(x, scale_factor=[float(s) for s in self.stride], mode=self.mode, align_corners=False)
        return x


def build_norm(spec: UNetSpec, ndim: int, channels: int) -> nn.Module:
    """Build the normalisation layer named by ``spec.norm``."""
    if spec.norm == "instance":
        return InstanceNorm(channels)
    if spec.norm == "batch":
        return BATCH_NORM[ndim](channels)
    if spec.norm == "group":
        return nn.GroupNorm(math.gcd(8, channels), channels)
    return nn.Identity()


def build_activation(spec: UNetSpec) -> nn.Module:
    """Build the activation function named by ``spec.activation``."""
    if spec.activation == "leaky_relu":
        return nn.LeakyReLU(0.01, inplace=True)
    if spec.activation == "relu":
        return nn.ReLU(inplace=True)
    if spec.activation == "silu":
        return nn.SiLU(inplace=True)
    return nn.GELU()


def build_conv(spec: UNetSpec, ndim: int, in_channels: int, out_channels: int, stride: Stride = 1) -> nn.Module:
    """Build a convolution of ``spec.kernel_size``, padded so that it divides sizes by the stride, or not at all."""
    kernel = conv_kernel(spec, ndim)
    if set(kernel) == {1}:
        return build_projection(ndim, in_channels, out_channels, stride)
    return CONV[ndim](in_channels, out_channels, kernel, stride=stride, padding=conv_padding(spec, kernel))


def build_projection(ndim: int, in_channels: int, out_channels: int, stride: Stride = 1) -> nn.Module:
    """Build a 1x1 convolution, strided or not."""
    if is_one(stride):
        projection: nn.Module = CONV[ndim](in_channels, out_channels, 1)
        return projection
    strided = SubsamplingConv2d if ndim == 2 else SubsamplingConv3d
    return strided(in_channels, out_channels, per_axis("strides", stride, ndim))


def build_depthwise(spec: UNetSpec, ndim: int, channels: int, stride: Stride = 1, *, bias: bool = True) -> nn.Module:
    """Build a convolution of ``spec.kernel_size`` that filters each channel by itself."""
    kernel = conv_kernel(spec, ndim)
    padding = conv_padding(spec, kernel)
    return CONV[ndim](channels, channels, kernel, stride=stride, padding=padding, groups=channels, bias=bias)


def conv_kernel(spec: UNetSpec, ndim: int) -> tuple[int, ...]:
    """Return the kernel of a stage's spec (``UNetSpec.at_stage``) along each axis."""
    return per_axis("kernel_size", spec.kernel_size, ndim)


def conv_padding(spec: UNetSpec, kernel: tuple[int, ...]) -> tuple[int, ...]:
    """Return the zeros on each side of a convolution's input, along each axis."""
    return tuple(size // 2 if spec.padding == "same" else 0 for size in kernel)


def crop_border(x: Float[Tensor, "*batch"], border: tuple[int, ...]) -> Float[Tensor, "*batch"]:
    """Crop ``border`` voxels from each side of the last axes, one number per axis."""
    if not any(border):
        return x
    axes = x.ndim - len(border)
    inside = (slice(b, n - b) for n, b in zip(x.shape[axes:], border, strict=True))
    return x[(*(slice(None),) * axes, *inside)]


def build_shortcut(spec: UNetSpec, ndim: int, in_channels: int, out_channels: int, stride: Stride) -> nn.Sequential:
    """Build the shortcut of ResNet-D (He 2019): averaged where it strides, projected where channels change."""
    shortcut = nn.Sequential()
    if not is_one(stride):
        shortcut.append(AVG_POOL[ndim](stride, stride))
    if in_channels != out_channels:
        shortcut.append(CONV[ndim](in_channels, out_channels, 1, bias=False))
        shortcut.append(build_norm(spec, ndim, out_channels))
    return shortcut


def expanded(spec: UNetSpec, channels: int) -> int:
    """Widen a number of channels by the expansion of a stage's spec (``UNetSpec.at_stage``)."""
    assert isinstance(spec.expansion, int)
    return spec.expansion * channels


def is_one(stride: Stride) -> bool:
    """Tell whether a stride keeps the resolution."""
    return stride == 1 or (isinstance(stride, tuple) and set(stride) == {1})
