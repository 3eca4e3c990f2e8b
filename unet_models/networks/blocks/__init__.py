"""Blocks of encoders and decoders, one file per type. The name of a file is its name in ``UNetSpec.block``.

plain               convolutions (Ronneberger 2015)
residual            convolutions with a shortcut around them (ResUNet, Zhang 2018)
residual_encoder    two convolutions per block, each block with a shortcut (nnU-Net's residual encoder, Isensee 2024)
separable           depthwise-separable convolutions (Howard 2017)
inverted_residual   expanded, filtered depthwise, projected (MobileNetV2, Sandler 2018)
shuffle             grouped convolutions and channel shuffle (ShuffleNet, Zhang 2018)
mednext             large depthwise kernels, expanded pointwise (MedNeXt, Roy 2023)

A file has a class ``Stage``, the blocks of one resolution, and where its networks need them ``Stem``, in front of the
first stage, and ``Upsample``, between two stages of the decoder. Adding a type is adding a file. A caller's own block
is any object with these attributes.
"""

from __future__ import annotations

import importlib
from typing import Any

from torch import nn

from unet_models.networks import layers
from unet_models.networks.layers import Stride
from unet_models.specs.networks import UNetSpec

Block = Any
"""A file of this folder, or an object with the same attributes."""


def find_block(name: str) -> Block:
    """Import the file of a block."""
    return importlib.import_module(f"{__name__}.{name}")


def build_stem(spec: UNetSpec, block: Block, ndim: int, in_channels: int) -> tuple[nn.Module, int]:
    """Build what precedes the first stage of the encoder; return it and the number of channels after it."""
    stem = getattr(block, "Stem", None)
    if stem is None:
        return nn.Identity(), in_channels
    return stem(spec, ndim, in_channels, spec.channels[0]), spec.channels[0]


def build_stage(
    spec: UNetSpec, block: Block, ndim: int, in_channels: int, out_channels: int, num_blocks: int, stride: Stride = 1
) -> nn.Module:
    """Build ``num_blocks`` blocks of one resolution: ``(B, C_in, *spatial)`` to ``(B, C_out, *spatial / stride)``."""
    stage: nn.Module = block.Stage(spec, ndim, in_channels, out_channels, num_blocks, stride)
    return stage


def build_upsample(
    spec: UNetSpec, block: Block, ndim: int, in_channels: int, out_channels: int, stride: tuple[int, ...]
) -> nn.Module:
    """Build the step to the next finer stage of the decoder."""
    upsample = getattr(block, "Upsample", layers.Upsample)
    built: nn.Module = upsample(spec, ndim, in_channels, out_channels, stride)
    return built
