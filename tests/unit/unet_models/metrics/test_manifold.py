"""Nearest neighbours, precision and recall, memorisation: by hand, and by all distances of scipy."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from tests.support.features import normal
from unet_models.metrics import manifold
from unet_models.metrics.manifold import memorisation, nearest_neighbours, precision_recall

INF = float("inf")


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sets of a few dozen samples then span several tiles, the last one not full."""
    monkeypatch.setattr(manifold, "_BLOCK_ROWS", 7)


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


def nearest(queries: np.ndarray, references: np.ndarray) -> np.ndarray:
    return nearest_neighbours(queries, references)[0][:, 0]


# --- Memorisation ----------------------------------------------------------------------------------------------------


def test_memorisation_worked_out_by_hand():
    train = np.array([[0.0], [100.0]])
    held_out = np.arange(1, 22.0)[:, None]  # 1 .. 21 from the nearest: median 11, 5th percentile 2
    generated = np.array([[100.5], [2.0], [-1.0], [95.0], [-20.0]])  # 0.5, 2, 1, 5, 20 from it
    assert memorisation(nearest(generated, train), nearest(held_out, train)) == {
        "generated_median": 2,
        "held_out_median": 11,
        "median_ratio": pytest.approx(2 / 11),
        "closer_than_held_out_p5": 2 / 5,
    }


def test_copies_are_memorised_and_fresh_samples_are_not():
    train, held_out, fresh = normal(500, 8), normal(400, 8, seed=1), normal(400, 8, seed=2)
    copied = memorisation(nearest(train[:100] + 1e-3, train), nearest(held_out, train))
    assert copied["median_ratio"] < 0.01
    assert copied["closer_than_held_out_p5"] == 1
    original = memorisation(nearest(fresh, train), nearest(held_out, train))
    assert original["median_ratio"] == pytest.approx(1, abs=0.05)
    assert original["closer_than_held_out_p5"] == pytest.approx(0.05, abs=0.04)


def test_held_out_images_that_are_training_images_give_no_ratio():
    none = np.zeros(5)
    scores = memorisation(none, none)
    assert np.isnan(scores["median_ratio"])
    assert scores["closer_than_held_out_p5"] == 0
    assert memorisation(none + 1, none)["median_ratio"] == INF


@pytest.mark.parametrize(("sizes", "name"), [((0, 4), "generated"), ((4, 0), "held_out")])
def test_memorisation_needs_samples_of_both(sizes: tuple[int, int], name: str):
    with pytest.raises(ValueError, match=f"{name} must hold at least one sample"):
        memorisation(*(np.ones(size) for size in sizes))
