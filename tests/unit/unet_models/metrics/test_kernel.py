"""The kernel distance: by hand, the naive double sum, and torchmetrics."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from tests.support.features import MeanColours, normal, pictures
from unet_models.metrics.kernel import kernel_distance

NAN = float("nan")


def naive_squared_mmd(x: np.ndarray, y: np.ndarray) -> float:
    def kernel(a: np.ndarray, b: np.ndarray) -> float:
        return (sum(p * q for p, q in zip(a, b, strict=True)) / len(a) + 1) ** 3

    within = [np.mean([kernel(a, b) for a, b in itertools.permutations(z, 2)]) for z in (x, y)]
    return float(sum(within) - 2 * np.mean([kernel(a, b) for a in x for b in y]))


def test_kernel_distance_is_the_naive_double_sum():
    x, y = normal(12, 5), normal(9, 5, seed=1) + 0.3
    mean, deviation = kernel_distance(x, y)
    assert mean == pytest.approx(naive_squared_mmd(x, y), rel=1e-10)
    assert np.isnan(deviation)


def test_kernel_distance_worked_out_by_hand():
    # Kernels: (0 + 1)^3 within x, (1*2 + 1)^3 within y, (0 + 1)^3 across.
    assert kernel_distance(np.array([[0.0], [0.0]]), np.array([[1.0], [2.0]]))[0] == pytest.approx(1 + 27 - 2)


def test_kernel_distance_over_subsets_is_mean_and_deviation_of_their_estimates():
    x, y = normal(30, 4), normal(8, 4, seed=1) + 0.5
    generator = np.random.default_rng(5)
    estimates = []
    for _ in range(3):
        chosen = generator.choice(30, 10, replace=False)
        estimates.append(naive_squared_mmd(x[chosen], y))  # y is smaller than a subset: whole, in any order
        generator.choice(8, 8, replace=False)
    mean, deviation = kernel_distance(x, y, subsets=3, subset_size=10, seed=5)
    assert mean == pytest.approx(np.mean(estimates), rel=1e-10)
    assert deviation == pytest.approx(np.std(estimates), rel=1e-10)


def test_kernel_distance_is_unbiased_and_sees_a_shift():
    x, y = normal(2000, 8), normal(2000, 8, seed=1)
    same, deviation = kernel_distance(x, y, subsets=200, subset_size=50)
    assert abs(same) < 4 * deviation / np.sqrt(200)
    assert kernel_distance(x, y + 0.5, subsets=20, subset_size=50)[0] > 5 * deviation


def test_seed_decides_the_subsets():
    x, y = normal(50, 3), normal(50, 3, seed=1)
    first = kernel_distance(x, y, subsets=4, subset_size=10, seed=1)
    assert kernel_distance(x, y, subsets=4, subset_size=10, seed=1) == first
    assert kernel_distance(x, y, subsets=4, subset_size=10, seed=2) != first


def test_kernel_distance_of_half_precision_is_in_float64():
    x, y = (normal(20, 4) * 30).astype(np.float16), (normal(20, 4, seed=1) * 30).astype(np.float16)
    assert kernel_distance(x, y) == pytest.approx(
        kernel_distance(x.astype(np.float64), y.astype(np.float64)), nan_ok=True
    )


def test_bad_sets_have_no_kernel_distance():
    x = normal(4, 3)
    with pytest.raises(ValueError, match="same features, got 3 and 2"):
        kernel_distance(x, x[:, :2])
    with pytest.raises(ValueError, match="at least 2 samples of each set, got 4 and 1"):
        kernel_distance(x, x[:1])
    with pytest.raises(ValueError, match="y must be finite"):
        kernel_distance(x, x * NAN)
    with pytest.raises(ValueError, match="got 0 and 1"):
        kernel_distance(x, x, subsets=0, subset_size=1)


@pytest.mark.filterwarnings("ignore:Metric `Kernel Inception Distance` will save all:UserWarning")
def test_kernel_distance_is_torchmetrics_with_the_same_extractor():
    from torchmetrics.image.kid import KernelInceptionDistance

    theirs = KernelInceptionDistance(feature=MeanColours(), subsets=1, subset_size=70).set_dtype(torch.float64)
    sets = [pictures(70, 1), pictures(70, 2)]
    for images, real in zip(sets, (True, False), strict=True):
        theirs.update(images, real=real)
    ours, _ = kernel_distance(*(MeanColours()(images).numpy() for images in sets), subset_size=70)
    assert ours == pytest.approx(float(theirs.compute()[0]), rel=1e-4)
    assert ours > 0.001
