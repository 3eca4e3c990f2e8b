"""Decoder of the U-Net: one stage per resolution, each joined with the encoder's features (Ronneberger 2015)."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from unet_models.networks.blocks import build_stage, build_upsample
from unet_models.networks.layers import CONV
from unet_models.networks.parts import Parts
from unet_models.specs.networks import Strides, UNetSpec
from unet_models.specs.valid import skip_crop


class Decoder(nn.Module):
    """Upsampling, skip connection and stage of each resolution, coarse to fine; a 1x1 convolution per output."""

    def __init__(self, spec: UNetSpec, ndim: int, strides: Strides, num_classes: int, parts: Parts) -> None:
        super().__init__()
        channels, block = spec.channels, parts.decoder_block
        self.upsamples, self.skips, self.stages = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        for i in reversed(range(len(channels) - 1)):
            own = spec.at_stage(i)
            skip: Any = parts.skip(
                spec.skips[i], ndim, channels[i], channels[i + 1], strides[i], skip_crop(spec, ndim, i)
            )
            self.upsamples.append(build_upsample(own, block, ndim, channels[i + 1], channels[i], strides[i]))
            self.skips.append(skip)
            self.stages.append(build_stage(own, block, ndim, skip.out_channels, channels[i], spec.decoder_blocks[i]))
        heads = range(spec.deep_supervision, -1, -1)
        self.heads = nn.ModuleList(CONV[ndim](channels[i], num_classes, 1) for i in heads)

    def forward(self, features: list[Tensor]) -> list[Tensor]:
        """Decode features, finest first, to logits, finest first."""
        *encoded, x = features
        decoded = []
        for number, skip in enumerate(reversed(encoded)):
            x = self.refine(number, x, skip)
            decoded.append(x)
        heads = self.heads if self.training else self.heads[-1:]
        return [head(x) for head, x in zip(heads, decoded[-len(heads) :], strict=True)][::-1]

    def refine(self, number: int, x: Tensor, encoded: Tensor) -> Tensor:
        """Run a stage, counted from the coarsest: join features of the stage before with the encoder's of its own."""
        joined = self.skips[number](encoded, self.upsamples[number](x), x)
        refined: Tensor = self.stages[number](joined)
        return refined
