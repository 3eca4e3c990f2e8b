"""Moments of features and the Fréchet distance: closed forms, numpy, scipy and torchmetrics."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import linalg

from tests.support.features import MeanColours, normal, pictures
from unet_models.metrics.frechet import FeatureMoments, frechet_distance

NAN, INF = float("nan"), float("inf")


def moments_of(features: np.ndarray) -> FeatureMoments:
    moments = FeatureMoments(features.shape[1])
    moments.update(features)
    return moments


def gaussian(mean: np.ndarray, covariance: np.ndarray, count: int = 11) -> FeatureMoments:
    """Moments as samples with exactly this mean and covariance would have them."""
    moments = FeatureMoments(len(mean))
    moments.count, moments.mean = count, np.array(mean, float)
    moments.scatter = np.asarray(covariance, dtype=np.float64) * (count - 1)
    return moments


# --- Moments ---------------------------------------------------------------------------------------------------------


def test_moments_are_numpys_mean_and_unbiased_covariance():
    features = normal(50, 4) @ normal(4, 4, seed=1) + 3
    moments = moments_of(features)
    assert moments.count == 50
    np.testing.assert_allclose(moments.mean, features.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(moments.covariance, np.cov(features.T), rtol=1e-12)


@settings(max_examples=50)
@given(st.lists(st.integers(0, 6), min_size=1, max_size=6), st.integers(0, 1000))
def test_pieces_add_up_to_the_whole(sizes: list[int], seed: int):
    features = normal(sum(sizes), 3, seed=seed) * [1, 10, 0.1] + [0, 5, -100]
    whole, updated = moments_of(features), FeatureMoments(3)
    for piece in np.split(features, np.cumsum(sizes)[:-1]):
        updated.update(piece)
    assert updated.count == whole.count
    np.testing.assert_allclose(updated.mean, whole.mean, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(updated.scatter, whole.scatter, rtol=1e-10, atol=1e-10)


def test_small_variance_beside_a_large_mean_keeps_its_digits():
    features = np.array([[1.0], [2.0], [3.0], [4.0]]) + 1e9
    moments = moments_of(features[:1])
    moments.update(features[1:])
    assert moments.covariance.item() == pytest.approx(5 / 3, rel=1e-9)


def test_half_precision_features_are_summed_in_float64():
    features = np.full((4096, 1), 100, dtype=np.float16)  # sums to 409600: infinite in float16
    features[0] = 50
    moments = moments_of(features)
    assert moments.mean.item() == (4095 * 100 + 50) / 4096
    assert moments.scatter.dtype == np.float64


def test_update_leaves_the_features_alone():
    features = normal(5, 2)
    before = features.copy()
    moments_of(features)
    np.testing.assert_array_equal(features, before)


@pytest.mark.parametrize(
    ("features", "message"),
    [
        (np.zeros(3), r"2 axes \(samples, features\), got float64 of shape \(3,\)"),
        (np.zeros((2, 3), complex), "real numbers"),
        (np.zeros((2, 4)), "moments of 3 features cannot take in 4"),
        (np.array([[0, 0, 0], [0, NAN, 0], [INF, 0, 0.0]]), "in 2 of 3 samples, first in sample 1"),
    ],
)
def test_bad_features_are_refused_and_not_added(features: np.ndarray, message: str):
    moments = FeatureMoments(3)
    with pytest.raises(ValueError, match=message):
        moments.update(features)
    assert moments.count == 0
    assert not moments.scatter.any()


# --- Fréchet distance ------------------------------------------------------------------------------------------------


def test_frechet_of_shifted_gaussians_is_the_squared_shift():
    covariance = np.cov(normal(30, 3).T)
    assert frechet_distance(gaussian([0, 0, 0], covariance), gaussian([1, -2, 3], covariance)) == pytest.approx(14)


def test_frechet_of_diagonal_covariances():
    # (3 - 1)^2 + (2 - 5)^2 + (0 - 4)^2 of the standard deviations, and 1 of the means.
    a, b = gaussian([0, 0, 0], np.diag([9, 4, 0])), gaussian([0, 1, 0], np.diag([1, 25, 16]))
    assert frechet_distance(a, b) == pytest.approx(4 + 9 + 16 + 1)
    assert frechet_distance(b, a) == pytest.approx(30)


def test_frechet_of_commuting_covariances():
    vectors = np.linalg.qr(normal(4, 4))[0]
    deviations = np.array([[1.0, 2.0, 0.5, 3.0], [2.0, 2.0, 1.5, 1.0]])
    a, b = (gaussian(np.zeros(4), (vectors * row**2) @ vectors.T) for row in deviations)
    assert frechet_distance(a, b) == pytest.approx(1 + 0 + 1 + 4)


def test_frechet_of_plane_gaussians_that_do_not_commute():
    # In the plane Tr((S_a S_b)^(1/2)) = (Tr(S_a S_b) + 2 det(S_a S_b)^(1/2))^(1/2): here (6 + 2 * 2)^(1/2).
    a, b = np.array([[2.0, 0.0], [0.0, 1.0]]), np.array([[2.0, 1.0], [1.0, 2.0]])
    b_scaled = b * 2 / np.sqrt(3)  # determinant 4
    expected = 3 + np.trace(b_scaled) - 2 * np.sqrt(np.trace(a @ b_scaled) + 2 * np.sqrt(2 * 4))
    assert frechet_distance(gaussian([0, 0], a), gaussian([0, 0], b_scaled)) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("counts", [(200, 300), (20, 500)])
def test_frechet_is_that_of_a_general_matrix_root(counts: tuple[int, int]):
    x, y = normal(counts[0], 16) @ normal(16, 16, seed=1), normal(counts[1], 16, seed=2) @ normal(16, 16, seed=3) + 0.5
    covariances = np.cov(x.T), np.cov(y.T)
    cross = np.trace(linalg.sqrtm(covariances[0] @ covariances[1])).real
    expected = np.sum((x.mean(0) - y.mean(0)) ** 2) + sum(map(np.trace, covariances)) - 2 * cross
    assert frechet_distance(moments_of(x), moments_of(y)) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("count", [5, 100])
def test_frechet_of_identical_sets_is_zero_also_below_full_rank(count: int):
    moments = moments_of(normal(count, 32))
    assert 0 <= frechet_distance(moments, moments) < 1e-5


def test_frechet_of_two_samples_is_never_negative():
    values = [
        frechet_distance(moments_of(x), moments_of(x + 1e-9)) for x in (normal(40, 24, seed=seed) for seed in range(20))
    ]
    assert min(values) >= 0


def test_frechet_needs_two_samples_of_the_same_features():
    three = moments_of(normal(3, 4))
    with pytest.raises(ValueError, match="at least 2 samples of each set, got 3 and 1"):
        frechet_distance(three, moments_of(normal(1, 4)))
    with pytest.raises(ValueError, match="same features, got 4 and 5"):
        frechet_distance(three, moments_of(normal(3, 5)))
    with pytest.raises(ValueError, match="at least 2 samples, got 0"):
        _ = FeatureMoments(2).covariance


def test_frechet_distance_is_torchmetrics_with_the_same_extractor():
    from torchmetrics.image.fid import FrechetInceptionDistance

    theirs = FrechetInceptionDistance(feature=MeanColours()).set_dtype(torch.float64)
    ours = []
    for images, real in ((pictures(150, 1), True), (pictures(90, 2), False)):
        theirs.update(images, real=real)
        ours.append(moments_of(MeanColours()(images).numpy()))
    assert frechet_distance(*ours) == pytest.approx(float(theirs.compute()), rel=1e-4)
    assert frechet_distance(*ours) > 0.01
