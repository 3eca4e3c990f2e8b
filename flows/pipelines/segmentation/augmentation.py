"""Settings of augmentation that follow from the shards: the axis of thick slices, and what is read around a patch."""

from __future__ import annotations

import logging

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data_pipelines.volumes.spacing import find_coarse_axis
from unet_models.specs.segmentation import AugmentSpec, TrainSpec
from unet_models.training.reach import augmentation_margin

logger = logging.getLogger(__name__)


def fit_augmentation(spec: TrainSpec, index: pa.Table) -> TrainSpec:
    """Replace ``coarse_axis: auto`` and an empty ``patch_margin`` by their values for the training samples of an index.

    The result goes into the checkpoint.
    """
    samples = index.filter(pc.equal(index["split"], "train"))
    augment = spec.augment
    if augment.coarse_axis == "auto":
        augment = augment.model_copy(update={"coarse_axis": _coarse_axis(samples)})
    margin = spec.patch_margin
    if margin is None:
        margin = _clip(augmentation_margin(spec.input_size, augment), spec.input_size, samples)
    _log(augment, margin)
    return spec.model_copy(update={"augment": augment, "patch_margin": margin})


def _coarse_axis(samples: pa.Table) -> int | None:
    """Find the axis of thick slices from the median spacing of the samples."""
    spacings = samples["spacing"].to_pylist()
    return find_coarse_axis(np.median(spacings, axis=0).tolist()) if spacings else None


def _clip(margin: tuple[int, ...], size: tuple[int, ...], samples: pa.Table) -> tuple[int, ...]:
    """Limit the margin to what the largest sample has beyond ``size``: farther out there is nothing to read."""
    shapes = samples["shape"].to_pylist()
    largest = np.max(shapes, axis=0).tolist() if shapes else size
    return tuple(min(m, max(n - p, 0)) for m, n, p in zip(margin, largest, size, strict=True))


def _log(augment: AugmentSpec, margin: int | tuple[int, ...]) -> None:
    if augment.coarse_axis is not None:
        logger.info("thick slices along axis %d: rotation and scaling work in their plane", augment.coarse_axis)
    logger.info("voxels read around each patch for rotation and scaling: %s", margin)
