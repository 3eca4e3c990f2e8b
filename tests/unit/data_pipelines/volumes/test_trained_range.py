"""What lies outside the range of the training data is noticed, and nothing else."""

from __future__ import annotations

import numpy as np
import pytest

from data_pipelines.volumes.fingerprint import CaseStatistics, ChannelStatistics
from data_pipelines.volumes.formats.base import Geometry
from data_pipelines.volumes.trained_range import TrainedRange


def statistics(shape: tuple[int, ...], spacing: tuple[float, ...], low: float, high: float) -> CaseStatistics:
    channel = ChannelStatistics(
        mean=0, std=1, min=-5000, max=5000, percentile_00_5=low, percentile_50_0=0, percentile_99_5=high
    )
    return CaseStatistics(case_id="a", shape=shape, spacing=spacing, channels=(channel,), voxels_per_class=(1, 1))


TRAINED = TrainedRange.of(
    [statistics((10, 10, 20), (1.0, 1.0, 2.5), 20, 180), statistics((12, 10, 10), (1.0, 1.0, 5.0), 40, 200)]
)


def test_range_of_cases() -> None:
    assert TRAINED.spacing == ((1, 1), (1, 1), (2.5, 5))
    assert TRAINED.extent == ((10, 12), (10, 10), (50, 50))
    assert TRAINED.intensities == ((20, 200),)


def outside(shape: tuple[int, ...], spacing: tuple[float, ...], value: float, *, is_absolute: bool = True) -> list[str]:
    image = np.full((1, *shape), value)
    geometry = Geometry(shape, spacing)
    return [each.message for each in TRAINED.find_outside("x.nii", image, geometry, is_absolute=[is_absolute])]


def test_what_is_like_the_training_data_is_not_noticed() -> None:
    assert outside((11, 10, 13), (1.0, 1.0, 4.0), 100) == []
    assert outside((10, 10, 10), (1.04, 1.0, 5.0), 20) == [], "4 % beyond"


@pytest.mark.parametrize(
    ("shape", "spacing", "value", "message"),
    [
        ((10, 10, 5), (1.0, 1.0, 10.0), 100, "voxels of 10 mm along z, trained on 2.5 to 5 mm"),
        ((10, 40, 10), (1.0, 1.0, 5.0), 100, "40 mm along y, trained on 10 mm"),
        ((10, 10, 10), (1.0, 1.0, 5.0), 0.3, "intensities 0.3, and 0 % of them between 20 to 200"),
    ],
)
def test_what_lies_outside(shape: tuple[int, ...], spacing: tuple[float, ...], value: float, message: str) -> None:
    (found,) = outside(shape, spacing, value)
    assert message in found


def test_intensities_without_a_unit_are_not_compared() -> None:
    assert outside((10, 10, 10), (1.0, 1.0, 5.0), 0.3, is_absolute=False) == []


def test_axes_are_those_of_the_body() -> None:
    """A file that stores z first."""
    affine = np.array([[0, 0, 1, 0], [0, 1, 0, 0], [5, 0, 0, 0], [0, 0, 0, 1]], float)
    geometry = Geometry((10, 10, 10), (5.0, 1.0, 1.0), tuple(map(tuple, affine.tolist())))
    assert TRAINED.find_outside("x", np.full((1, 10, 10, 10), 100), geometry, is_absolute=[True]) == []


def test_channels_are_compared_where_their_intensities_have_a_unit() -> None:
    both = TRAINED.model_copy(update={"intensities": ((20, 200), (20, 200))})
    image, geometry = np.full((2, 10, 10, 10), 0.3), Geometry((10, 10, 10), (1.0, 1.0, 5.0))
    (found,) = both.find_outside("x.nii", image, geometry, is_absolute=[True, False])
    assert found.message.startswith("channel 0: ")
