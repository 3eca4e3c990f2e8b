"""Distances between sets of features: closed forms, naive sums and scipy."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import linalg
from scipy.spatial.distance import cdist

from unet_models.metrics.frechet import FeatureMoments, frechet_distance
from unet_models.metrics.kernel import kernel_distance
from unet_models.metrics import manifold
from unet_models.metrics.manifold import memorisation, nearest_neighbours, precision_recall

NAN, INF = float("nan"), float("inf")


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape)


def moments_of(features: np.ndarray) -> FeatureMoments:
    moments = FeatureMoments(features.shape[1])
    moments.update(features)
    return moments


def gaussian(mean: np.ndarray, covariance: np.ndarray, count: int = 11) -> FeatureMoments:
    """Moments as samples with exactly this mean and covariance would have them."""
    scatter = np.asarray(covariance, dtype=np.float64) * (count - 1)
    return FeatureMoments.from_arrays({"count": np.array(count), "mean": np.array(mean, float), "scatter": scatter})


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sets of a few dozen samples then span several tiles, the last one not full."""
    monkeypatch.setattr(manifold, "_BLOCK_ROWS", 7)


# --- Moments ---------------------------------------------------------------------------------------------------------


def test_moments_are_numpys_mean_and_unbiased_covariance():
    features = normal(50, 4) @ normal(4, 4, seed=1) + 3
    moments = moments_of(features)
    assert moments.count == 50
    np.testing.assert_allclose(moments.mean, features.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(moments.covariance, np.cov(features.T), rtol=1e-12)


@settings(max_examples=50)
@given(st.lists(st.integers(0, 6), min_size=1, max_size=6), st.integers(0, 1000), st.randoms(use_true_random=False))
def test_pieces_merged_in_any_order_are_the_whole(sizes: list[int], seed: int, random):
    features = normal(sum(sizes), 3, seed=seed) * [1, 10, 0.1] + [0, 5, -100]
    whole = moments_of(features)
    parts = [moments_of(piece) for piece in np.split(features, np.cumsum(sizes)[:-1])]
    random.shuffle(parts)
    merged, updated = FeatureMoments(3), FeatureMoments(3)
    for part in parts:
        merged.merge(part)
    for piece in np.split(features, np.cumsum(sizes)[:-1]):
        updated.update(piece)
    for other in (merged, updated):
        assert other.count == whole.count
        np.testing.assert_allclose(other.mean, whole.mean, rtol=1e-12, atol=1e-12)
        np.testing.assert_allclose(other.scatter, whole.scatter, rtol=1e-10, atol=1e-10)


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


def test_moments_survive_arrays_that_are_read_only_and_go_on_growing():
    features = normal(20, 3)
    first = moments_of(features[:9])
    arrays = first.to_arrays()
    for array in arrays.values():
        array.flags.writeable = False
    second = FeatureMoments.from_arrays(arrays)
    second.update(features[9:])
    np.testing.assert_allclose(second.covariance, np.cov(features.T), rtol=1e-12)
    assert (first.count, arrays["count"]) == (9, 9)
    np.testing.assert_array_equal(first.scatter, arrays["scatter"])
    first.update(features)
    assert not np.array_equal(first.scatter, arrays["scatter"])


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


def test_bad_arrays_are_refused():
    arrays = FeatureMoments(3).to_arrays()
    with pytest.raises(ValueError, match=r"none named \['mean', 'scatter'\]"):
        FeatureMoments.from_arrays({"count": np.array(3)})
    with pytest.raises(ValueError, match=r"got \(2,\) and \(3, 3\)"):
        FeatureMoments.from_arrays(arrays | {"mean": np.zeros(2)})
    with pytest.raises(ValueError, match="moments of 3 features cannot take in 2"):
        FeatureMoments(3).merge(FeatureMoments(2))


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


# --- torchmetrics ----------------------------------------------------------------------------------------------------


class MeanColours(torch.nn.Module):
    """An extractor: the mean colours of the four quarters of an image, (N, 12)."""

    num_features = 12

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.adaptive_avg_pool2d(images.double() / 255, 2).flatten(1)


def pictures(count: int, seed: int) -> torch.Tensor:
    """(N, 3, 8, 8) uint8, brighter with the seed."""
    return torch.from_numpy(np.random.default_rng(seed).integers(0, 200 + 20 * seed, (count, 3, 8, 8), dtype=np.uint8))


def test_frechet_distance_is_torchmetrics_with_the_same_extractor():
    from torchmetrics.image.fid import FrechetInceptionDistance

    theirs = FrechetInceptionDistance(feature=MeanColours()).set_dtype(torch.float64)
    ours = []
    for images, real in ((pictures(150, 1), True), (pictures(90, 2), False)):
        theirs.update(images, real=real)
        ours.append(moments_of(MeanColours()(images).numpy()))
    assert frechet_distance(*ours) == pytest.approx(float(theirs.compute()), rel=1e-4)
    assert frechet_distance(*ours) > 0.01


def test_kernel_distance_is_torchmetrics_with_the_same_extractor():
    from torchmetrics.image.kid import KernelInceptionDistance

    theirs = KernelInceptionDistance(feature=MeanColours(), subsets=1, subset_size=70).set_dtype(torch.float64)
    sets = [pictures(70, 1), pictures(70, 2)]
    for images, real in zip(sets, (True, False), strict=True):
        theirs.update(images, real=real)
    ours, _ = kernel_distance(*(MeanColours()(images).numpy() for images in sets), subset_size=70)
    assert ours == pytest.approx(float(theirs.compute()[0]), rel=1e-4)
    assert ours > 0.001


# --- Kernel distance -------------------------------------------------------------------------------------------------


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


# --- Nearest neighbours ----------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("k", [1, 3, 20, 31])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_nearest_neighbours_are_scipys(k: int, dtype: str):
    queries, references = normal(23, 6).astype(dtype), normal(31, 6, seed=1).astype(dtype)
    expected = cdist(queries.astype(np.float64), references.astype(np.float64))
    distances, indices = nearest_neighbours(queries, references, k)
    assert distances.shape == indices.shape == (23, k)
    np.testing.assert_array_equal(indices, expected.argsort(axis=1)[:, :k])
    np.testing.assert_allclose(distances, np.sort(expected, axis=1)[:, :k], rtol=1e-12)


def test_copies_are_at_zero_however_far_from_the_origin():
    references = normal(40, 5) + 1e6
    distances, indices = nearest_neighbours(references[::-1], references)
    assert indices[:, 0].tolist() == list(range(39, -1, -1))
    assert not distances.any()


def test_few_features_far_from_the_origin_are_still_told_apart():
    references = 1e8 + np.arange(50.0)[:, None]
    distances, indices = nearest_neighbours(references + 0.25, references, 2)
    np.testing.assert_allclose(distances[1:-1], [[0.25, 0.75]] * 48)
    assert indices[:, 0].tolist() == list(range(50))


def test_no_queries_have_no_neighbours():
    assert nearest_neighbours(np.empty((0, 3)), normal(4, 3))[0].shape == (0, 1)


@pytest.mark.parametrize("k", [0, 5])
def test_as_many_neighbours_as_references_at_most(k: int):
    with pytest.raises(ValueError, match=f"k must be 1 to 4, the number of references, got {k}"):
        nearest_neighbours(normal(2, 3), normal(4, 3), k)


# --- Precision and recall --------------------------------------------------------------------------------------------


def naive_precision_recall(real: np.ndarray, generated: np.ndarray, k: int) -> tuple[float, float]:
    def covered(points: np.ndarray, centres: np.ndarray) -> float:
        radii = np.sort(cdist(centres, centres), axis=1)[:, k]  # column 0 is the sample itself
        return float((cdist(points, centres) <= radii).any(axis=1).mean())

    return covered(generated, real), covered(real, generated)


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("k", [1, 3, 5])
def test_precision_and_recall_are_those_of_all_distances(k: int):
    real, generated = normal(40, 3), normal(25, 3, seed=1) + np.array([2, 0, 0])
    found = precision_recall(real, generated, k)
    assert found == pytest.approx(naive_precision_recall(real, generated, k))
    assert all(0.1 < value < 0.9 for value in found), found


@pytest.mark.usefixtures("small_blocks")
def test_identical_sets_have_full_precision_and_recall():
    features = normal(30, 4)
    assert precision_recall(features, features[::-1]) == (1, 1)


def test_sets_far_apart_have_none():
    features = normal(30, 4)
    assert precision_recall(features, features + 100) == (0, 0)


@pytest.mark.usefixtures("small_blocks")
def test_one_of_two_modes_is_precise_and_half_the_variety():
    mode = normal(20, 4)
    assert precision_recall(np.concatenate([mode, mode + 100]), mode) == (1, 0.5)
    assert precision_recall(mode, np.concatenate([mode, mode + 100])) == (0.5, 1)


def test_ball_reaches_to_the_kth_neighbour_and_holds_its_rim():
    real = np.array([[0.0], [1.0], [3.0], [7.0]])  # to the first neighbour 1, 1, 2, 4; to the second 3, 2, 3, 6
    points = np.array([[-1.0], [-1.5], [11.0], [13.0]])
    assert precision_recall(real, points, k=1)[0] == 0.5  # -1 and 11, both on a rim
    assert precision_recall(real, points, k=2)[0] == 1
    assert precision_recall(real, points + np.array([[0], [-2], [0], [0.5]]), k=2)[0] == 0.5


def test_copies_of_repeated_samples_lie_in_balls_of_radius_zero():
    repeated = np.repeat(normal(10, 64), 4, axis=0) * 20 + 30
    assert precision_recall(repeated, repeated, k=3) == (1, 1)


@pytest.mark.parametrize("call", [precision_recall, nearest_neighbours])
def test_bad_pairs_are_refused(call: Callable[..., object]):
    with pytest.raises(ValueError, match="must have the same features, got 3 and 2"):
        call(normal(9, 3), normal(9, 2))
    with pytest.raises(ValueError, match="must be finite"):
        call(normal(9, 3), normal(9, 3) * INF)


@pytest.mark.parametrize("k", [0, 5])
def test_neighbours_beyond_the_set_are_refused(k: int):
    with pytest.raises(ValueError, match=f"below the number of samples, got {k} for 9 and 5"):
        precision_recall(normal(9, 3), normal(5, 3), k)


# --- Memorisation ----------------------------------------------------------------------------------------------------


def test_memorisation_worked_out_by_hand():
    train = np.array([[0.0], [100.0]])
    held_out = np.arange(1, 22.0)[:, None]  # 1 .. 21 from the nearest: median 11, 5th percentile 2
    generated = np.array([[100.5], [2.0], [-1.0], [95.0], [-20.0]])  # 0.5, 2, 1, 5, 20 from it
    assert memorisation(generated, train, held_out) == {
        "generated_median": 2,
        "held_out_median": 11,
        "median_ratio": pytest.approx(2 / 11),
        "closer_than_held_out_p5": 2 / 5,
    }


def test_copies_are_memorised_and_fresh_samples_are_not():
    train, held_out, fresh = normal(500, 8), normal(400, 8, seed=1), normal(400, 8, seed=2)
    copied = memorisation(train[:100] + 1e-3, train, held_out)
    assert copied["median_ratio"] < 0.01
    assert copied["closer_than_held_out_p5"] == 1
    original = memorisation(fresh, train, held_out)
    assert original["median_ratio"] == pytest.approx(1, abs=0.05)
    assert original["closer_than_held_out_p5"] == pytest.approx(0.05, abs=0.04)


def test_held_out_images_that_are_training_images_give_no_ratio():
    features = normal(5, 2)
    scores = memorisation(features, features, features)
    assert np.isnan(scores["median_ratio"])
    assert scores["closer_than_held_out_p5"] == 0
    assert memorisation(features + 1, features, features)["median_ratio"] == INF


@pytest.mark.parametrize("empty", [0, 1, 2])
def test_memorisation_needs_samples_of_all_three(empty: int):
    sets = [normal(4, 2) for _ in range(3)]
    sets[empty] = sets[empty][:0]
    with pytest.raises(ValueError, match=f"{('generated', 'train', 'held_out')[empty]} must hold at least one sample"):
        memorisation(*sets)
