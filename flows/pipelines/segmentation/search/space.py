"""Choices of a search of segmentation networks: width, depth, block, skip connections, learning rate."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from flows.pipelines.segmentation.task import SegmentationTask
from flows.tuning.space import Space, Values
from unet_models.specs.networks import BLOCKS, UNetSpec
from unet_models.specs.segmentation import TrainSpec

WIDTHS = (8, 12, 16, 24, 32)
MAX_CHANNELS = 320
"""Most channels of a stage; deeper ones have no more (nnU-Net)."""
SMALLEST_SIDE = 4
"""An axis is halved while at least so many voxels are left of the patch (nnU-Net)."""
LEARNING_RATES = (5e-4, 1e-3, 2e-3, 4e-3, 8e-3)
SKIPS = ("concat", "add", "gated", "none")


def choices(spec: TrainSpec) -> dict[str, Sequence[Any]]:
    """Return names to choices: ``width`` (channels at full resolution), ``depth`` (stages), and fields of the model."""
    deepest = 1 + max(num_halvings(size) for size in spec.patch_size)
    return {
        "width": WIDTHS,
        "depth": tuple(range(2, deepest + 1)),
        "block": BLOCKS,
        "skip": SKIPS,
        "learning_rate": LEARNING_RATES,
    }


def apply(spec: TrainSpec, values: Values) -> TrainSpec:
    """Return the settings with chosen values. Raises ValueError where they do not go together."""
    model = spec.model.model_dump()
    model |= {name: values[name] for name in ("block", "skip") if name in values}
    if values.keys() & {"width", "depth"}:
        width, depth = values.get("width", spec.model.channels[0]), values.get("depth", len(spec.model.channels))
        model |= {
            "channels": [min(width * 2**stage, MAX_CHANNELS) for stage in range(depth)],
            "strides": strides(spec.patch_size, depth),
            "num_blocks": max(spec.model.encoder_blocks),
            "num_decoder_blocks": max(spec.model.decoder_blocks),
            "deep_supervision": min(spec.model.deep_supervision, depth - 2),
        }
    optimizer = spec.optimizer.model_copy(
        update={"learning_rate": values.get("learning_rate", spec.optimizer.learning_rate)}
    )
    return spec.model_copy(update={"model": UNetSpec.model_validate(model), "optimizer": optimizer})


def strides(patch_size: Sequence[int], depth: int) -> list[list[int]]:
    """Return the downsampling between ``depth`` stages: an axis is halved while enough of the patch is left."""
    return [[2 if stage < num_halvings(size) else 1 for size in patch_size] for stage in range(depth - 1)]


def num_halvings(size: int) -> int:
    """Return how often an axis of ``size`` voxels can be halved without a remainder above the smallest side."""
    count = 0
    while size % 2 == 0 and size // 2 >= SMALLEST_SIDE:
        size, count = size // 2, count + 1
    return count


def example(task: SegmentationTask) -> tuple[Tensor, ...]:
    """Return one window of zeros (1, C, *patch)."""
    return (torch.zeros(1, task.num_channels, *task.spec.patch_size),)


SEGMENTATION_SPACE = Space(choices, apply, example)
