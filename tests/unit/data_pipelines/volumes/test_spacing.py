"""The spacing of a data set, and the axis of thick slices."""

from __future__ import annotations

import pytest

from data_pipelines.volumes.spacing import find_coarse_axis, typical_spacing


@pytest.mark.parametrize(
    ("spacings", "expected"),
    [
        ([1.25] * 4, 1.25),  # not 1.2
        ([1.25, 1.25, 1.25, 3.0, 0.5], 1.25),
        ([0.9765625] * 3, 0.976562),
        ([0.699999988079071] * 2 + [0.7], 0.7),  # as float32 headers have it
        ([2.4999, 2.5, 2.5, 2.5003, 5.0], 2.5),
        ([5.0, 0.5], 2.75),
    ],
)
def test_common_spacings_are_kept(spacings: list[float], expected: float) -> None:
    assert typical_spacing(spacings) == expected
    assert typical_spacing(spacings[::-1]) == expected


def test_without_a_majority_the_median_is_rounded_by_half_a_percent_at_most() -> None:
    assert typical_spacing([0.61, 0.7013, 0.79]) == 0.7
    assert typical_spacing([0.61, 0.6853, 0.79]) == 0.685
    assert typical_spacing([0.61, 0.7013, 0.7021, 0.79]) == 0.7  # another case does not move it
    for median in (0.312, 0.9949, 1.0049, 1.249, 3.333):
        assert typical_spacing([median / 2, median, median * 2]) == pytest.approx(median, rel=5e-3)


@pytest.mark.parametrize(
    ("spacing", "axis"),
    [
        ((1.0, 1.0, 3.1), 2),
        ((5.0, 1.0, 1.0), 0),
        ((1.0, 1.0, 3.0), None),  # not more than 3 times
        ((0.5, 1.4, 2.0), 2),
        ((0.5, 2.0, 2.1), None),  # no plane of nearly square voxels
        ((1.0, 5.0), None),  # an image has no slices
    ],
)
def test_the_axis_of_thick_slices(spacing: tuple[float, ...], axis: int | None) -> None:
    assert find_coarse_axis(spacing) == axis
