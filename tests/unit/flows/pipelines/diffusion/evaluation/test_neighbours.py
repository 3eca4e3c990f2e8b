"""Neighbours among all training images: searched in pieces, and what an exact copier scores."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from data_pipelines.loading.order import evenly_spaced
from flows.pipelines.diffusion.evaluation.asking import Samples
from flows.pipelines.diffusion.evaluation.neighbours import (
    find_among,
    merge_all,
    read_queries,
    select_queries,
    write_queries,
)
from flows.pipelines.diffusion.evaluation.plan import plan_search
from flows.stages.attempt import Attempt
from unet_models.metrics.manifold import memorisation


def normal(count: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, 6)).astype(np.float32)


def test_pieces_give_the_neighbours_of_the_whole() -> None:
    train, queries = normal(90, 0), {"generated/clip": normal(20, 1), "val/clip": normal(7, 2)}
    pieces = [(0, 40), (40, 42), (42, 90)]
    found = merge_all(find_among(queries, {"clip": train[a:b]}, range(100 + a, 100 + b)) for a, b in pieces)
    for name, query in queries.items():
        expected = cdist(query.astype(np.float64), train.astype(np.float64))
        np.testing.assert_array_equal(found[name].rows, 100 + expected.argsort(axis=1)[:, :3])
        np.testing.assert_allclose(found[name].distances, np.sort(expected, axis=1)[:, :3])


def test_an_exact_copier_is_found_out_whatever_it_copies() -> None:
    """Of 40,000 images evenly spaced 5,000 were searched: a copier of all scored 0.18 instead of 1."""
    train, held_out = normal(4000, 0), normal(400, 1)
    copies = train[np.random.default_rng(2).integers(4000, size=300)]
    some = evenly_spaced(range(4000), 500)
    rest = sorted(set(range(4000)) - set(some))
    queries = {"generated/clip": copies, "val/clip": held_out}
    parts = [find_among(queries, {"clip": train[rows]}, rows) for rows in (some, rest)]
    scores = [
        memorisation(*(found[name].distances[:, 0] for name in queries))["closer_than_held_out_p5"]
        for found in (parts[0], merge_all(parts))
    ]
    assert scores[0] < 0.3
    assert scores[1] == 1


def test_every_training_image_is_searched_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flows.pipelines.diffusion.evaluation.asking.MAX_REAL", 10)
    monkeypatch.setattr("flows.pipelines.diffusion.evaluation.plan.SEARCH_IMAGES", 8)
    splits = ["val" if i % 4 == 0 else "train" for i in range(60)]
    samples = Samples([""] * 60, splits, [""] * 60)
    parts = plan_search(samples)
    assert max(len(part.rows) for part in parts) == 8
    searched = sorted([*samples.rows("train"), *(row for part in parts for row in part.rows)])
    assert searched == [row for row, split in enumerate(splits) if split == "train"]


def test_queries_travel_as_a_file(tmp_path: Path) -> None:
    sets = {"generated": {"clip": normal(3, 0)}, "val": {"clip": normal(2, 1)}, "train": {"clip": normal(5, 2)}}
    queries = select_queries(sets)
    assert queries.keys() == {"generated/clip", "val/clip"}
    read = read_queries(write_queries(Attempt(str(tmp_path), "key", "attempt"), queries))
    np.testing.assert_array_equal(read["val/clip"], sets["val"]["clip"])
