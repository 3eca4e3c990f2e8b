"""The cheapest sweep within a memory is chosen."""

from __future__ import annotations

import pytest

from unet_models.sampling.sweep import Sweep, plan_sweep

CUBE, PATCH = (512, 512, 512), (128, 128, 128)


def plan(limit_gb: float, shape: tuple[int, ...] = CUBE, patch: tuple[int, ...] = PATCH, num_copies: int = 1) -> Sweep:
    return plan_sweep(
        shape, shape, patch, channels=1, classes=32, batch_size=4, limit_gb=limit_gb, num_copies=num_copies
    )


@pytest.mark.parametrize(
    ("limit_gb", "expected"),
    [
        (100.0, (4, 1)),
        (6.7, (1, 1)),
        (4.5, (1, 2)),
        (4.0, (1, 3)),
        (0.1, (1, 4)),  # as many strips as a window is long: needs least
    ],
)
def test_what_costs_nothing_comes_first(limit_gb: float, expected: tuple[int, int]) -> None:
    sweep = plan(limit_gb)
    assert (sweep.batch_size, sweep.num_strips) == expected
    assert (sweep.gigabytes <= limit_gb) == (limit_gb > 0.1)


def test_small_images_are_predicted_in_one() -> None:
    sweep = plan(4.0, (36, 50, 35), (40, 56, 40))
    assert (sweep.batch_size, sweep.num_strips) == (4, 1)


def test_the_axis_is_the_one_along_which_windows_reach_the_smallest_part() -> None:
    assert plan(4.0, (64, 100, 400), (64, 64, 64)).axis == 2
    assert plan(4.0, (64, 64, 64), (64, 64, 64)).axis == 0
    assert plan(4.0, (300, 512, 512), (1, 512, 512)).axis == 0


def test_sums_are_counted_by_hand() -> None:
    """Sums, image and labels, windows and planes, in bytes."""
    sums = 128 * 512 * 512 * (32 * 4 + 4)
    fixed = 0.7e9 + 512**3 * 4 + 2 * 512**3
    windows, planes = (1 + 4) * 32 * 128**3 * 4, 6 * 512 * 512 * 32 * 4
    assert plan(100.0).gigabytes == pytest.approx((sums + fixed + windows + planes) / 1e9)


def test_logits_of_several_members_are_counted() -> None:
    """Of a batch of 4 windows, 20 times instead of once."""
    more = plan(100.0, num_copies=20).gigabytes - plan(100.0).gigabytes
    assert more == pytest.approx(4 * 19 * 32 * 128**3 * 4 / 1e9)
    assert plan(12.0, num_copies=20).batch_size == 1
