"""Choices of a search of segmentation networks: width, depth, block, skip connections, learning rate."""

from __future__ import annotations

import math
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
    """Return names to choices: ``width`` (channels at full resolution), ``depth`` (stages), and fields of the model.

    ``depth`` has none where no axis of the patch can be halved.
    """
    deepest = 1 + max(num_halvings(size) for size in spec.patch_size)
    return {
        "width": WIDTHS,
        "depth": tuple(range(2, deepest + 1)),
        "block": BLOCKS,
        "skip": SKIPS,
        "learning_rate": LEARNING_RATES,
    }


def apply(spec: TrainSpec, values: Values) -> TrainSpec:
    """Return the settings with chosen values, all others as they are. Raises ValueError where they do not go together.

    Settings of each stage are cut at another depth, or their last one goes on: strides as the patch allows.
    """
    model, depth = spec.model.model_dump(), values.get("depth", len(spec.model.channels))
    if depth != len(spec.model.channels):
        model |= _at_depth(spec, depth)
    if "width" in values:
        model["channels"] = [min(values["width"] * 2**stage, MAX_CHANNELS) for stage in range(depth)]
    model |= {name: values[name] for name in ("block", "skip") if name in values}
    optimizer = spec.optimizer.model_copy(
        update={"learning_rate": values.get("learning_rate", spec.optimizer.learning_rate)}
    )
    return spec.model_copy(update={"model": UNetSpec.model_validate(model), "optimizer": optimizer})


def _at_depth(spec: TrainSpec, depth: int) -> dict[str, Any]:
    """Return the fields of the model that have an entry for each stage, for another number of stages."""
    model = spec.model
    per_stage = {
        name: _of_length(getattr(model, name), count)
        for names, count in (
            (("num_blocks", "expansion", "kernel_size"), depth),
            (("num_decoder_blocks", "skip"), depth - 1),
        )
        for name in names
    }
    known = model.strides_per_axis(len(spec.patch_size))
    left = [size // math.prod(axis) for size, axis in zip(spec.patch_size, zip(*known, strict=True), strict=True)]
    more = strides(left, depth - len(known)) if depth - 1 > len(known) else []
    channels = list(model.channels[:depth])
    while len(channels) < depth:
        channels.append(max(channels[-1], min(2 * channels[-1], MAX_CHANNELS)))
    return per_stage | {
        "channels": channels,
        "strides": [*known[: depth - 1], *more],
        "deep_supervision": min(model.deep_supervision, depth - 2),
    }


def _of_length(value: Any, number: int) -> Any:
    """Return one value for all stages as it is, and of several as many as there are stages."""
    return (*value, *[value[-1]] * number)[:number] if isinstance(value, tuple) else value


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
    """Return one window of zeros (1, C, *input): of valid convolutions the patch and its border."""
    return (torch.zeros(1, task.num_channels, *task.spec.input_size),)


SEGMENTATION_SPACE = Space(choices, apply, example)
