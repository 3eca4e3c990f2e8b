"""Samples of the batch of a step: a pure function of (seed, step).

Epoch after epoch forms one endless sequence of samples; step ``s`` takes its places ``s*B`` to ``s*B + B - 1``. Within
an epoch shards are shuffled, and samples are shuffled inside windows of a few shards, so remote shards are downloaded
once and in sequence. Only the current window is laid out, so memory does not grow with the number of samples.

Samples of several sizes lie in buckets, each with an endless sequence of its own; a batch comes from one bucket. As all
buckets shuffle the same shards by the same seed, they read the same shards at about the same time.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from functools import lru_cache
from typing import TypeVar

import numpy as np

from data_pipelines.errors import ConfigError
from data_pipelines.random_streams import Stream, numpy_generator

T = TypeVar("T")
GOLDEN_SECTION = (5**0.5 - 1) / 2


class SampleOrder:
    """Rows of the index in training order.

    ``shard_rows`` holds the row numbers of each shard's samples, if any; ``window_shards`` is the number of shards that
    are shuffled together. Raises ConfigError where there is no sample at all.
    """

    def __init__(self, shard_rows: Sequence[np.ndarray], seed: int, window_shards: int = 16) -> None:
        if not any(len(rows) for rows in shard_rows):
            raise ConfigError("no training samples: the split leaves none to train on")
        self.shard_rows = [np.asarray(rows) for rows in shard_rows]
        self.seed = seed
        self.window_shards = window_shards
        self.num_samples = sum(len(rows) for rows in self.shard_rows)
        self._epoch_layout = lru_cache(maxsize=2)(self._lay_out_epoch)
        self._window = lru_cache(maxsize=4)(self._shuffle_window)

    def __reduce__(self) -> tuple[type[SampleOrder], tuple[list[np.ndarray], int, int]]:
        return type(self), (self.shard_rows, self.seed, self.window_shards)  # caches do not pickle

    def rows(self, step: int, global_batch_size: int) -> list[int]:
        """Return the row numbers of the global batch of ``step``."""
        first = step * global_batch_size
        return [self._row(place) for place in range(first, first + global_batch_size)]

    def _row(self, place: int) -> int:
        epoch, offset = divmod(place, self.num_samples)
        _, window_ends = self._epoch_layout(epoch)
        window = int(np.searchsorted(window_ends, offset, side="right"))
        start = int(window_ends[window - 1]) if window else 0
        return int(self._window(epoch, window)[offset - start])

    def _lay_out_epoch(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """Shuffle the shards; returns their order and the offset at which each window ends."""
        shards = self._rng(epoch).permutation(len(self.shard_rows))
        sizes = np.array([len(self.shard_rows[s]) for s in shards])
        ends = np.cumsum(sizes)
        last = np.minimum(np.arange(self.window_shards, len(ends) + self.window_shards, self.window_shards), len(ends))
        return shards, ends[last - 1]

    def _shuffle_window(self, epoch: int, window: int) -> np.ndarray:
        shards, _ = self._epoch_layout(epoch)
        chosen = shards[window * self.window_shards : (window + 1) * self.window_shards]
        rows = np.concatenate([self.shard_rows[s] for s in chosen])
        return self._rng(epoch, window).permutation(rows)

    def _rng(self, *address: int) -> np.random.Generator:
        return numpy_generator(self.seed, Stream.SAMPLE_ORDER, *address)


class BucketOrder:
    """Batches of one bucket each, every bucket in proportion to its number of samples.

    The buckets lie one after the other on a circle; each step advances by its golden section, so every stretch of
    steps, short or long, meets each bucket about as often as its share says (a Weyl sequence). Within a bucket its own
    order continues from batch to batch; a bucket of fewer samples than a batch repeats them within the batch.
    """

    def __init__(self, buckets: Sequence[SampleOrder], seed: int) -> None:
        self.buckets = list(buckets)
        self.seed = seed
        sizes = np.array([bucket.num_samples for bucket in self.buckets])
        self._ends = np.cumsum(sizes) / sizes.sum()
        self._turns = lru_cache(maxsize=1)(self._lay_out)

    def __reduce__(self) -> tuple[type[BucketOrder], tuple[list[SampleOrder], int]]:
        return type(self), (self.buckets, self.seed)

    def rows(self, step: int, global_batch_size: int) -> list[int]:
        """Return the row numbers of the global batch of ``step``."""
        chosen, turns = self._turns(1 << step.bit_length())
        return self.buckets[chosen[step]].rows(int(turns[step]), global_batch_size)

    def _lay_out(self, num_steps: int) -> tuple[np.ndarray, np.ndarray]:
        """Choose the bucket of each step, and count the earlier steps with the same bucket."""
        start = numpy_generator(self.seed, Stream.BUCKET_ORDER).random()
        places = (start + GOLDEN_SECTION * np.arange(num_steps)) % 1
        chosen = np.minimum(np.searchsorted(self._ends, places, side="right"), len(self.buckets) - 1)
        turns = np.zeros(num_steps, np.int64)
        for bucket in range(len(self.buckets)):
            steps = np.flatnonzero(chosen == bucket)
            turns[steps] = np.arange(len(steps))
        return chosen, turns


def rank_positions(global_batch_size: int, rank: int, world_size: int) -> range:
    """Return the positions of a global batch that ``rank`` reads; the ranks' sizes differ by at most one.

    Raises ConfigError where there are more ranks than samples.
    """
    if global_batch_size < world_size:
        raise ConfigError(
            f"train.global_batch_size ({global_batch_size}) is smaller than the number of workers ({world_size}): "
            "raise it or ask for fewer workers"
        )
    return range(rank * global_batch_size // world_size, (rank + 1) * global_batch_size // world_size)


def group_alike(kinds: Sequence[Hashable], max_size: int) -> list[list[int]]:
    """Group the indices of ``kinds``, at most ``max_size`` to a group and all of one kind."""
    indices: dict[Hashable, list[int]] = {}
    for index, kind in enumerate(kinds):
        indices.setdefault(kind, []).append(index)
    return [alike[i : i + max_size] for alike in indices.values() for i in range(0, len(alike), max_size)]


def evenly_spaced(items: Sequence[T], max_items: int) -> list[T]:
    """Choose at most ``max_items`` of the items, evenly spaced from the first to the last."""
    indices = np.linspace(0, len(items) - 1, min(max_items, len(items))).round().astype(int)
    return [items[index] for index in indices]
