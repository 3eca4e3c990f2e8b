"""Augmentation fitted to the shards: the axis of thick slices, and what is read around a patch."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest

from flows.pipelines.segmentation.augmentation import fit_augmentation
from unet_models.specs.segmentation import AugmentSpec, TrainSpec

TURNED = AugmentSpec.nothing().model_copy(update={"p_rotate": 1.0, "rotate_degrees": 90.0})


def fit(spacings: list[list[float]], shapes: list[list[int]], **spec: Any) -> TrainSpec:
    """Fit a spec to training samples, and to a held-out one that must not count."""
    fields = {"patch_size": (100, 100, 8), "augment": TURNED} | spec
    index = pa.table(
        {
            "split": ["train"] * len(spacings) + ["val"],
            "spacing": [*spacings, [9.0, 1.0, 1.0]],
            "shape": [*shapes, [999, 999, 999]],
        }
    )
    return fit_augmentation(TrainSpec(**fields), index)


def test_thick_slices_are_found_and_the_margin_lies_in_their_plane() -> None:
    found = fit([[0.7, 0.7, 5.0], [0.7, 0.7, 1.0], [0.8, 0.8, 6.0]], [[400, 400, 30]] * 3)
    assert found.augment.coarse_axis == 2
    assert found.patch_margin == found.margins == (21, 21, 0)
    assert TrainSpec.model_validate_json(found.model_dump_json()) == found


def test_nearly_cubic_voxels_turn_about_every_axis() -> None:
    found = fit([[1.0, 1.0, 2.5]] * 2, [[400, 400, 400]] * 2)
    assert found.augment.coarse_axis is None
    assert found.patch_margin == (21, 21, 47)


def test_nothing_is_read_beyond_the_largest_sample() -> None:
    assert fit([[1.0, 1.0, 1.0]] * 2, [[90, 110, 8], [105, 90, 12]]).patch_margin == (5, 10, 4)


@pytest.mark.parametrize("margin", [0, 7, (3, 2, 1)])
def test_what_is_given_stays(margin: int | tuple[int, ...]) -> None:
    augment = TURNED.model_copy(update={"coarse_axis": 1})
    found = fit([[0.7, 0.7, 5.0]], [[400, 400, 30]], patch_margin=margin, augment=augment)
    assert found.patch_margin == margin
    assert found.augment.coarse_axis == 1
    assert fit([[0.7, 0.7, 5.0]], [[40, 40, 30]], augment=TURNED.model_copy(update={"coarse_axis": None})).augment == (
        TURNED.model_copy(update={"coarse_axis": None})
    )


@pytest.mark.parametrize("margin", [-1, (1, 2), (1, 2, -3)])
def test_margins_that_fit_no_patch(margin: int | tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"patch_margin must be one number, or one per axis of patch_size \(3\)"):
        TrainSpec(patch_margin=margin)
