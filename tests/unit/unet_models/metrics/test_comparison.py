"""Paired comparison: against the paired t-test, and its error rate under equal models."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from unet_models.metrics.comparison import Counts, compare_paired, draw_counts


def mean(values: NDArray[np.float64]) -> Callable[[Counts], NDArray[np.float64]]:
    return lambda counts: counts @ values / counts.sum(axis=1)


@pytest.mark.parametrize("level", [0.8, 0.95])
@pytest.mark.parametrize("num_cases", [4, 12, 60])
def test_the_bound_of_a_mean_is_that_of_the_paired_t_test(num_cases: int, level: float) -> None:
    generator = np.random.default_rng(0)
    theirs = generator.normal(0.8, 0.1, num_cases)
    ours = theirs + generator.normal(0.01, 0.02, num_cases)
    found = compare_paired(mean(ours), mean(theirs), num_cases, level=level, num_resamples=20_000)
    expected = stats.ttest_rel(ours, theirs, alternative="greater").confidence_interval(level).low
    assert found.improvement == pytest.approx((ours - theirs).mean())
    assert found.lower_bound == pytest.approx(expected, abs=0.02 * (found.improvement - expected))


def test_equal_models_are_promoted_as_rarely_as_the_level_says() -> None:
    generator = np.random.default_rng(1)
    promoted = 0
    for _ in range(400):
        theirs = generator.normal(0.8, 0.1, 6)
        ours = theirs + generator.normal(0, 0.02, 6)
        promoted += compare_paired(mean(ours), mean(theirs), 6, level=0.95, num_resamples=200).lower_bound > 0
    assert promoted <= 36  # 400 times 0.05 is 20, and four standard deviations of 4.4 more


def test_hard_cases_do_not_hide_a_small_improvement_of_all() -> None:
    theirs = np.linspace(0.1, 0.9, 10)
    assert compare_paired(mean(theirs + 0.01), mean(theirs), 10, level=0.95).lower_bound == pytest.approx(0.01)


def test_identical_models_and_single_cases() -> None:
    values = np.array([0.5, 0.7])
    same = compare_paired(mean(values), mean(values), 2, level=0.5)
    assert (same.improvement, same.lower_bound) == (0, 0)
    one = compare_paired(mean(values[:1] + 1), mean(values[:1]), 1, level=0.95)
    assert (one.improvement, one.lower_bound) == (1, -math.inf)
    with pytest.raises(ValueError, match="at least one case"):
        compare_paired(mean(values), mean(values), 0, level=0.95)


def test_every_resample_draws_as_many_cases() -> None:
    counts = draw_counts(7, 50, seed=0)
    assert counts.shape == (50, 7)
    assert (counts.sum(axis=1) == 7).all()
    np.testing.assert_array_equal(counts, draw_counts(7, 50, seed=0))
