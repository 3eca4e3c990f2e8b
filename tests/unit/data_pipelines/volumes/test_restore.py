"""Logits go back to the stored grid plane by plane as they would as a whole."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from data_pipelines.volumes.formats.base import Geometry
from data_pipelines.volumes.preprocess import prepare, resample
from data_pipelines.volumes.specs import PreprocessSpec
from tests.support.logits import restored

RAW = PreprocessSpec(normalise="none")


def random_logits(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize(("axis", "num_strips"), [*itertools.product(range(3), (1, 2, 3, 99))])
@pytest.mark.parametrize("shape", [(9, 8, 7), (4, 12, 3)])
def test_logits_are_resampled_before_the_argmax(axis: int, num_strips: int, shape: tuple[int, ...]) -> None:
    logits = random_logits(4, 5, 6, 3)
    spacing = tuple(n / m for n, m in zip(shape, (5, 6, 3), strict=True))
    done = prepare(np.zeros((1, *shape)), Geometry(shape, (1.0, 1.0, 1.0)), RAW, spacing).done
    assert done.shape == logits.shape[1:]
    whole = F.interpolate(torch.from_numpy(logits)[None], shape, mode="trilinear", align_corners=False)[0]
    np.testing.assert_array_equal(restored(logits, done, axis, num_strips), whole.argmax(0))


@pytest.mark.parametrize(("axis", "num_strips"), [*itertools.product(range(3), (1, 2))])
@pytest.mark.parametrize("coarse", range(3))
def test_thick_slices_go_back_one_by_one(coarse: int, axis: int, num_strips: int) -> None:
    """Whatever the axis that is swept: slices are never blended."""
    shape, stored, spacing = [7, 6, 5], [1.0, 1.0, 1.0], [0.7, 1.5, 0.8]
    stored[coarse], spacing[coarse] = 4.0, 2.5
    done = prepare(np.zeros((1, *shape)), Geometry(tuple(shape), tuple(stored)), RAW, tuple(spacing)).done
    assert done.coarse_axis == coarse
    logits = random_logits(3, *done.shape)
    whole = np.stack([resample(one, tuple(shape), 1, coarse) for one in logits])
    np.testing.assert_array_equal(restored(logits, done, axis, num_strips), whole.argmax(0))


def test_logits_of_thick_slices_go_back_to_the_nearest() -> None:
    thick = np.zeros((1, 4, 4, 3), np.float32)
    done = prepare(thick, Geometry((4, 4, 3), (1.0, 1.0, 5.0)), RAW, (1.0, 1.0, 2.5)).done
    assert done.shape == (4, 4, 6)
    logits = np.zeros((2, 4, 4, 6), np.float32)
    logits[1, ..., [1, 3, 5]] = np.array([1.0, -1.0, 1.0])[:, None, None]  # the slices nearest to those stored
    logits[1, ..., [0, 2, 4]] = -9.0
    found = restored(logits, done)
    assert [found[..., k].max() for k in range(3)] == [1, 0, 1]


@pytest.mark.parametrize("num_strips", [1, 2])
def test_images_of_two_axes_go_back_row_by_row(num_strips: int) -> None:
    done = prepare(np.zeros((1, 9, 8)), Geometry((9, 8), (1.0, 1.0)), RAW, (1.8, 4 / 3)).done
    logits = random_logits(3, 5, 6)
    whole = F.interpolate(torch.from_numpy(logits)[None], (9, 8), mode="bilinear", align_corners=False)[0]
    for axis in (0, 1):
        np.testing.assert_array_equal(restored(logits, done, axis, num_strips), whole.argmax(0))
