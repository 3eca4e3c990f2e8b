"""Weights of classes in the loss."""

from __future__ import annotations

import logging
import statistics
from collections.abc import Mapping
from typing import Literal

import pyarrow as pa
import pyarrow.compute as pc

from data_pipelines.errors import ConfigError
from data_pipelines.volumes.classes import Labels

logger = logging.getLogger(__name__)

MAX_WEIGHT = 10.0
"""Largest weight that is given by size: of a class of a few voxels it would drown all others."""


def output_weights(
    wanted: Mapping[str, float] | Literal["auto"] | None, labels: Labels, index: pa.Table
) -> tuple[float, ...]:
    """Return the weight of each of the network's outputs for ``train.class_weights``; empty where all weigh alike.

    ``auto`` counts the voxels of the training samples of the index. Raises ConfigError for names that are no class.
    """
    if wanted is None:
        return ()
    names = labels.output_names
    if wanted == "auto":
        wanted = weights_by_size(_sizes(labels, index))
        logger.info("weights of classes by their size: %s", {name: round(each, 2) for name, each in wanted.items()})
    if unknown := sorted(set(wanted) - set(names)):
        raise ConfigError(f"train.class_weights: unknown class {', '.join(unknown)}; choose from {', '.join(names)}")
    return tuple(wanted.get(name, 1.0) for name in names)


def weights_by_size(sizes: Mapping[str, int]) -> dict[str, float]:
    """Weigh each class by the square root of how many times the median class is as large, between 1 and the maximum."""
    typical = statistics.median(sizes.values())
    return {name: min(max((typical / max(size, 1)) ** 0.5, 1.0), MAX_WEIGHT) for name, size in sizes.items()}


def _sizes(labels: Labels, index: pa.Table) -> dict[str, int]:
    """Count the voxels of each target in the training samples."""
    counts = index.filter(pc.equal(index["split"], "train"))["class_voxels"].to_pylist()
    return {name: sum(each[number] for each in counts for number in of) for name, of in labels.targets.items()}
