"""The order of samples: every epoch visits each once, and the batch of a step depends on (seed, step) alone."""

from __future__ import annotations

import pickle
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipelines.errors import ConfigError
from data_pipelines.loading.order import BucketOrder, SampleOrder, evenly_spaced, group_alike, rank_positions

sizes_of_shards = st.lists(st.integers(0, 7), min_size=1, max_size=12).filter(any)
seeds = st.integers(0, 2**31)


def shards_of(sizes: list[int]) -> list[np.ndarray]:
    """Row numbers of consecutive shards."""
    return np.split(np.arange(sum(sizes)), np.cumsum(sizes)[:-1])


@settings(deadline=None)
@given(sizes=sizes_of_shards, seed=seeds, window=st.integers(1, 5), batch=st.integers(1, 9), epochs=st.integers(1, 3))
def test_every_epoch_visits_each_sample_once(sizes: list[int], seed: int, window: int, batch: int, epochs: int) -> None:
    order = SampleOrder(shards_of(sizes), seed, window)
    num_samples = sum(sizes)
    num_steps = -(-epochs * num_samples // batch)
    line = [row for step in range(num_steps) for row in order.rows(step, batch)]
    for epoch in range(epochs):
        visited = line[epoch * num_samples : (epoch + 1) * num_samples]
        assert sorted(visited) == list(range(num_samples))


@settings(deadline=None)
@given(sizes=sizes_of_shards, seed=seeds, window=st.integers(1, 5), batch=st.integers(1, 9), step=st.integers(0, 200))
def test_a_step_is_the_same_for_whoever_asks_whenever(
    sizes: list[int], seed: int, window: int, batch: int, step: int
) -> None:
    asked_in_turn = SampleOrder(shards_of(sizes), seed, window)
    for earlier in range(0, step, 7):
        asked_in_turn.rows(earlier, batch)
    rows = asked_in_turn.rows(step, batch)
    assert SampleOrder(shards_of(sizes), seed, window).rows(step, batch) == rows
    assert pickle.loads(pickle.dumps(asked_in_turn)).rows(step, batch) == rows
    asked_in_turn.rows(step + 50, batch)
    assert asked_in_turn.rows(step, batch) == rows  # and backwards


def test_batch_size_only_cuts_the_line() -> None:
    order = SampleOrder(shards_of([4, 3, 5]), seed=1, window_shards=2)
    ones = [order.rows(step, 1)[0] for step in range(30)]
    fives = [row for step in range(6) for row in order.rows(step, 5)]
    assert ones == fives


def test_rows_need_not_be_numbered_in_turn() -> None:
    order = SampleOrder([np.array([8, 2]), np.array([], int), np.array([5])], seed=0)
    assert order.num_samples == 3
    assert sorted(order.rows(0, 3)) == [2, 5, 8]
    assert all(type(row) is int for row in order.rows(0, 3))


def test_epochs_and_seeds_differ() -> None:
    order = SampleOrder(shards_of([50]), seed=0)
    first, second = order.rows(0, 50), order.rows(1, 50)
    assert first != second
    assert first != list(range(50))
    assert first != SampleOrder(shards_of([50]), seed=1).rows(0, 50)


def test_within_a_window_only_its_shards_are_read() -> None:
    shard_of = np.repeat(np.arange(6), 10)
    order = SampleOrder(shards_of([10] * 6), seed=3, window_shards=2)
    windows = np.array(order.rows(0, 60)).reshape(3, 20)
    for window in windows:
        assert len(set(shard_of[window])) == 2
    assert any((np.diff(shard_of[window]) != 0).sum() > 1 for window in windows)  # the shards of a window are mixed
    assert len({tuple(sorted(set(shard_of[window]))) for window in windows}) == 3


def test_positions_within_an_epoch_are_uniform() -> None:
    order = SampleOrder(shards_of([1, 1, 1, 1]), seed=0, window_shards=2)
    firsts = Counter(order.rows(step, 4)[0] for step in range(400))
    assert set(firsts) == {0, 1, 2, 3}
    assert all(60 < count < 140 for count in firsts.values())  # 100 +- 4.6 standard deviations


def test_nothing_to_train_on_is_said() -> None:
    with pytest.raises(ConfigError, match="no training samples"):
        SampleOrder([np.array([], int)], seed=0)


@settings(deadline=None)
@given(batch=st.integers(1, 64), data=st.data())
def test_slices_of_the_ranks_make_the_global_batch(batch: int, data: st.DataObject) -> None:
    world_size = data.draw(st.integers(1, batch))
    slices = [rank_positions(batch, rank, world_size) for rank in range(world_size)]
    assert [position for part in slices for position in part] == list(range(batch))
    sizes = [len(part) for part in slices]
    assert max(sizes) - min(sizes) <= 1
    assert min(sizes) >= 1


def test_more_workers_than_samples_is_said() -> None:
    with pytest.raises(ConfigError, match=r"train\.global_batch_size \(2\).*number of workers \(3\)"):
        rank_positions(2, 0, 3)


@pytest.mark.parametrize(
    ("most", "chosen"), [(0, ""), (1, "a"), (2, "ag"), (3, "adg"), (4, "aceg"), (7, "abcdefg"), (9, "abcdefg")]
)
def test_evenly_spaced_choices(most: int, chosen: str) -> None:
    assert evenly_spaced("abcdefg", most) == list(chosen)
    assert evenly_spaced("", most) == []


def test_numbers_do_not_change_between_versions() -> None:
    """A checkpoint of yesterday goes on with the samples of yesterday."""
    order = SampleOrder(shards_of([3, 4, 2]), seed=5, window_shards=2)
    assert order.rows(0, 9) == [2, 7, 0, 8, 1, 5, 3, 4, 6]
    assert order.rows(1, 9) == [0, 4, 3, 1, 6, 5, 2, 7, 8]


def test_buckets_shuffle_their_shards_alike() -> None:
    """Shards come from afar once if all buckets read them at about the same time."""
    together = sum(shards_in_common(seed, seed) for seed in range(8))
    apart = sum(shards_in_common(seed, seed + 100) for seed in range(8))
    assert together > 4 * apart


def shards_in_common(seed: int, seed_of_the_rare: int) -> int:
    """Shards that a common and a rare bucket read in the same tenth of an epoch, over all tenths."""
    rows = [np.arange(10 * i, 10 * i + 10) for i in range(40)]
    common = SampleOrder([part[:8] for part in rows], seed, window_shards=4)
    rare = SampleOrder([part[8:] if i % 3 else part[:0] for i, part in enumerate(rows)], seed_of_the_rare, 4)
    tenths = [np.array_split(order.rows(0, order.num_samples), 10) for order in (common, rare)]
    return sum(len(set(near // 10) & set(far // 10)) for near, far in zip(*tenths, strict=True))


def test_group_alike() -> None:
    assert group_alike("abaabb", 2) == [[0, 2], [3], [1, 4], [5]]
    assert group_alike("", 2) == []


# --- buckets ---------------------------------------------------------------------------------------------------------

BUCKET_SIZES = (70, 25, 5)


def bucket_order(seed: int = 3, sizes: tuple[int, ...] = BUCKET_SIZES) -> BucketOrder:
    """Rows 0..69 in the first bucket, and so on."""
    groups = np.split(np.arange(sum(sizes)), np.cumsum(sizes)[:-1])
    return BucketOrder([SampleOrder([rows], seed) for rows in groups], seed)


def bucket_of(row: int) -> int:
    return int(np.searchsorted(np.cumsum(BUCKET_SIZES), row, side="right"))


def test_a_batch_is_of_one_bucket_and_every_sample_has_its_turn() -> None:
    order, batch = bucket_order(), 8
    batches = [order.rows(step, batch) for step in range(1000)]
    assert all(len({bucket_of(row) for row in rows}) == 1 for rows in batches)
    turns = Counter(row for rows in batches for row in rows)
    assert set(turns) == set(range(100))
    assert min(turns.values()) >= 79  # 8,000 places for 100 samples; shares are kept to within a batch or two
    assert max(turns.values()) <= 84


def test_any_stretch_of_steps_has_its_share_of_every_bucket() -> None:
    order = bucket_order()
    drawn = np.array([bucket_of(order.rows(step, 1)[0]) for step in range(2000)])
    for start in range(0, 1900, 50):
        counts = np.bincount(drawn[start : start + 100], minlength=3)
        assert np.abs(counts - BUCKET_SIZES).max() <= 3


@settings(deadline=None)
@given(step=st.integers(0, 5000), seed=st.integers(0, 2**31))
def test_a_step_is_the_same_for_whoever_asks_its_bucket(step: int, seed: int) -> None:
    asked_in_turn = bucket_order(seed)
    for earlier in range(0, step, 97):
        asked_in_turn.rows(earlier, 4)
    rows = asked_in_turn.rows(step, 4)
    assert bucket_order(seed).rows(step, 4) == rows
    assert pickle.loads(pickle.dumps(asked_in_turn)).rows(step, 4) == rows


def test_seeds_begin_elsewhere() -> None:
    starts = {tuple(bucket_of(bucket_order(seed).rows(step, 1)[0]) for step in range(20)) for seed in range(10)}
    assert len(starts) > 5


def test_one_bucket_is_the_plain_order() -> None:
    order = bucket_order(sizes=(9,))
    plain = SampleOrder([np.arange(9)], 3)
    assert [order.rows(step, 4) for step in range(20)] == [plain.rows(step, 4) for step in range(20)]
