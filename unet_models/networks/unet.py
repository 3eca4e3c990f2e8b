"""Segmentation U-Net, 2-D and 3-D (Ronneberger 2015; Cicek 2016; Isensee 2021)."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from data_pipelines.errors import ConfigError
from unet_models.networks.blocks import (
    CONV,
    CONV_TRANSPOSE,
    MAX_POOL,
    AttentionGate,
    SegmentationNetwork,
    Stage,
    Upsample,
)
from unet_models.specs.networks import UNetSpec


class UNet(SegmentationNetwork):
    """Encoder and decoder with skip connections; ``spec`` configures the stages.

    Any input size works: the network pads at the far end of each axis to a multiple of the strides and crops its
    output back.

    Raises ConfigError where the strides of ``spec`` do not fit ``ndim``.
    """

    def __init__(self, spec: UNetSpec, in_channels: int, num_classes: int, ndim: int = 3) -> None:
        super().__init__()
        self.spec, self.ndim = spec, ndim
        channels = spec.channels
        self.strides = [_per_axis(s, ndim) for s in spec.strides or (2,) * (len(channels) - 1)]
        self.divisor = tuple(math.prod(s[axis] for s in self.strides) for axis in range(ndim))

        self._build_encoder(in_channels)
        self._build_decoder()
        heads = range(spec.deep_supervision, -1, -1)
        self.heads = nn.ModuleList(CONV[ndim](channels[i], num_classes, 1) for i in heads)  # coarse to fine
        self.apply(self._initialise)

    def forward(
        self, images: Float[Tensor, "batch channels *spatial"]
    ) -> Float[Tensor, "batch classes *spatial"] | list[Tensor]:
        """Map images to logits of the same spatial shape.

        In training mode with ``deep_supervision`` returns a list of logits, full resolution first, which keep the
        padding, so that each spatial size divides by the strides; otherwise the full-resolution logits alone.
        """
        size = images.shape[2:]
        x = self._pad(images)
        skips = []
        for pool, stage in zip(self.pools, self.encoder, strict=True):
            x = stage(pool(x))  # (B, C_i, *spatial / product of strides)
            skips.append(x)
        skips.pop()
        decoded = []
        for upsample, gate, stage in zip(self.upsamples, self.gates, self.decoder, strict=True):
            x = stage(self._join(skips.pop(), upsample(x), gate))
            decoded.append(x)
        if self.training and self.spec.deep_supervision:
            return [head(f) for head, f in zip(self.heads, decoded[-len(self.heads) :], strict=True)][::-1]
        return _crop(self.heads[-1](x), size)

    def _build_encoder(self, in_channels: int) -> None:
        spec, ndim, channels = self.spec, self.ndim, self.spec.channels
        self.encoder, self.pools = nn.ModuleList(), nn.ModuleList()
        for i, width in enumerate(channels):
            stride = self.strides[i - 1] if i else (1,) * ndim
            pooled = spec.downsample == "max_pool" and i > 0
            self.pools.append(MAX_POOL[ndim](stride) if pooled else nn.Identity())
            before = channels[i - 1] if i else in_channels
            conv_stride = 1 if pooled or i == 0 else stride
            self.encoder.append(Stage(spec, ndim, before, width, spec.num_convs, conv_stride))

    def _build_decoder(self) -> None:
        spec, ndim, channels = self.spec, self.ndim, self.spec.channels
        self.upsamples, self.gates, self.decoder = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        for i in reversed(range(len(channels) - 1)):  # coarse to fine
            width = channels[i]
            self.upsamples.append(Upsample(spec, ndim, channels[i + 1], width, self.strides[i]))
            self.gates.append(AttentionGate(ndim, width) if spec.skip == "gated" else nn.Identity())
            joined = width if spec.skip == "add" else 2 * width
            self.decoder.append(Stage(spec, ndim, joined, width, spec.num_decoder_convs))

    def _join(self, skip: Tensor, x: Tensor, gate: nn.Module) -> Tensor:
        if self.spec.skip == "add":
            return skip + x
        if self.spec.skip == "gated":
            skip = gate(skip, x)
        return torch.cat([skip, x], dim=1)

    def _pad(self, images: Tensor) -> Tensor:
        missing = [-n % d for n, d in zip(images.shape[2:], self.divisor, strict=True)]
        if all(n <= d for n, d in zip(images.shape[2:], self.divisor, strict=True)):
            missing[-1] += self.divisor[-1]  # a coarsest stage of one voxel has no statistics to normalise by
        if not any(missing):
            return images
        return F.pad(images, [side for m in reversed(missing) for side in (0, m)])

    def _initialise(self, module: nn.Module) -> None:
        """Initialise convolutions as nnU-Net does: He 2015 with a negative slope of 0.01, biases 0."""
        if isinstance(module, (CONV[self.ndim], CONV_TRANSPOSE[self.ndim])):
            nn.init.kaiming_normal_(module.weight, a=0.01)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def _per_axis(stride: int | tuple[int, ...], ndim: int) -> tuple[int, ...]:
    strides = (stride,) * ndim if isinstance(stride, int) else tuple(stride)
    if len(strides) != ndim:
        raise ConfigError(f"strides: each entry needs {ndim} numbers, one per spatial axis, got {list(strides)}")
    return strides


def _crop(x: Tensor, size: torch.Size) -> Tensor:
    return x if x.shape[2:] == size else x[(slice(None), slice(None), *(slice(n) for n in size))]
