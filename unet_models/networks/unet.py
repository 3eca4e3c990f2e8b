"""Segmentation U-Nets, 2-D and 3-D: an encoder and a decoder of any blocks (Ronneberger 2015; Cicek 2016)."""

from __future__ import annotations

import itertools
import operator

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from data_pipelines.errors import InputError
from unet_models.networks.blocks import Block, build_stage, build_stem
from unet_models.networks.layers import MAX_POOL, SegmentationNetwork
from unet_models.specs.networks import Strides, UNetSpec


class Encoder(nn.Module):
    """Stem, and one stage per resolution."""

    def __init__(self, spec: UNetSpec, ndim: int, strides: Strides, in_channels: int, block: Block) -> None:
        super().__init__()
        self.scales = tuple(itertools.accumulate(strides, _multiply, initial=(1,) * ndim))
        """Product of the strides before each stage, per axis."""
        self.stem, width = build_stem(spec.at_stage(0), block, ndim, in_channels)
        self.pools, self.stages = nn.ModuleList(), nn.ModuleList()
        for i, channels in enumerate(spec.channels):
            stride = strides[i - 1] if i else (1,) * ndim
            pooled = spec.downsample == "max_pool" and i > 0
            self.pools.append(MAX_POOL[ndim](stride) if pooled else nn.Identity())
            self.stages.append(
                build_stage(
                    spec.at_stage(i),
                    block,
                    ndim,
                    width,
                    channels,
                    spec.encoder_blocks[i],
                    1 if pooled or i == 0 else stride,
                )
            )
            width = channels

    def forward(self, images: Float[Tensor, "batch channels *spatial"]) -> list[Tensor]:
        """Encode images to features ``(B, C_i, *spatial / product of strides)``, finest first."""
        x, features = self.stem(images), []
        for pool, stage in zip(self.pools, self.stages, strict=True):
            x = stage(pool(x))
            features.append(x)
        return features


def _multiply(some: tuple[int, ...], others: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(map(operator.mul, some, others))


class UNet(SegmentationNetwork):
    """An encoder and a decoder. ``build_network`` makes them from a spec; any other modules of the same calls do.

    Any input size works: the network pads at the far end of each axis to a multiple of the divisor and crops its output
    back. With valid convolutions it pads nothing: the logits lack ``border`` voxels on each side.
    """

    def __init__(
        self,
        encoder: nn.Module,
        decoder: nn.Module,
        divisor: tuple[int, ...],
        border: tuple[int, ...] | None = None,
        remainder: tuple[int, ...] | None = None,
        num_previous: int = 0,
    ) -> None:
        """Join the parts; ``divisor`` is the product of the encoder's strides of each axis.

        ``border`` and ``remainder`` are those of valid convolutions (``unet_models.specs.valid``). With
        ``num_previous`` the last channel of images is a label map of so many classes beside the background, see
        ``spread_labels``.
        """
        super().__init__()
        self.encoder, self.decoder = encoder, decoder
        self.ndim, self.divisor = len(divisor), divisor
        self.border, self.remainder = border or (0,) * self.ndim, remainder or (0,) * self.ndim
        self.num_previous = num_previous

    def forward(
        self, images: Float[Tensor, "batch channels *spatial"]
    ) -> Float[Tensor, "batch classes *spatial"] | list[Tensor]:
        """Map images to logits of the same spatial shape, less ``border`` voxels on each side.

        In training mode a decoder with deep supervision returns a list of logits, full resolution first, which keep the
        padding, so that each spatial size divides by the strides; otherwise the full-resolution logits alone.
        """
        return self.decode(self.encode(images), images)

    def encode(self, images: Float[Tensor, "batch channels *spatial"]) -> list[Tensor]:
        """Map images to the features that the decoder takes, finest first."""
        if self.num_previous:
            images = spread_labels(images, self.num_previous)
        features: list[Tensor] = self.encoder(self.pad(images))
        return features

    def decode(self, features: list[Tensor], images: Tensor) -> Float[Tensor, "batch classes *spatial"] | list[Tensor]:
        """Map features of padded ``images``, finest first, to logits, as ``forward`` returns them."""
        logits: list[Tensor] = self.decoder(features)
        if len(logits) > 1:
            return logits
        return self.crop(logits[0], images)

    def pad(self, images: Float[Tensor, "batch channels *spatial"]) -> Float[Tensor, "batch channels *padded"]:
        """Pad images with zeros at the far end of each axis to the sizes that the encoder takes.

        Raises InputError where valid convolutions do not fit the size.
        """
        if any(self.border):
            self._check_size(images)
            return images
        missing = [-n % d for n, d in zip(images.shape[2:], self.divisor, strict=True)]
        if all(n <= d for n, d in zip(images.shape[2:], self.divisor, strict=True)):
            missing[-1] += self.divisor[-1]  # a coarsest stage of one voxel has no statistics to normalise by
        if not any(missing):
            return images
        return F.pad(images, [side for m in reversed(missing) for side in (0, m)])

    def crop(
        self, x: Float[Tensor, "batch features *padded"], images: Tensor
    ) -> Float[Tensor, "batch features *spatial"]:
        """Crop what was computed from padded images back to the size of ``images``, less the border."""
        size = tuple(n - 2 * border for n, border in zip(images.shape[2:], self.border, strict=True))
        return x if tuple(x.shape[2:]) == size else x[(slice(None), slice(None), *(slice(n) for n in size))]

    def _check_size(self, images: Tensor) -> None:
        parts = zip(images.shape[2:], self.border, self.remainder, self.divisor, strict=True)
        for axis, (n, border, remainder, divisor) in enumerate(parts):
            least = 2 * border + 1 + (remainder - 2 * border - 1) % divisor
            smaller = n - (n - remainder) % divisor
            if n < least or n != smaller:
                fitting = f"{smaller} or {smaller + divisor}" if smaller >= least else f"{least}"
                raise InputError(
                    f"images: {n} voxels along axis {axis} do not fit the valid convolutions; give {fitting}"
                )


def spread_labels(
    images: Float[Tensor, "batch channels *spatial"], num_classes: int
) -> Float[Tensor, "batch spread *spatial"]:
    """Replace the last channel, a label map, by a channel of zeros and ones for each class from 1 to ``num_classes``.

    It is the segmentation of a previous network, which the second one of a cascade refines (Isensee 2021).
    """
    classes = torch.arange(1, num_classes + 1, device=images.device).view(-1, *(1,) * (images.ndim - 2))
    return torch.cat([images[:, :-1], (images[:, -1:] == classes).to(images.dtype)], dim=1)
