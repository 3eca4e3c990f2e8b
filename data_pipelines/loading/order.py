"""Which samples make the batch of a step: a pure function of (seed, step).

Epoch after epoch is one endless line of samples; step ``s`` takes places ``s*B`` to ``s*B + B - 1`` of it. Within an
epoch shards are shuffled, and samples are shuffled inside windows of a few shards, so remote shards are fetched once
and in sequence. Only the current window is ever laid out, so memory does not grow with the number of samples.

Samples of several sizes lie in buckets, each with an endless line of its own; a batch is of one bucket. As all buckets
shuffle the same shards by the same seed, they are in the same shards at about the same time.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from functools import lru_cache
from typing import TypeVar

import numpy as np

T = TypeVar("T")
ORDER, BUCKETS = 0, 5
"""First number of the address of these random streams, apart from those of patches, augmentation, noise and dropout."""
GOLDEN_SECTION = (5**0.5 - 1) / 2


class SampleOrder:
    """Rows of the index in training order.

    ``shard_rows`` holds, for each shard, the row numbers of its samples, if any.
    """

    def __init__(self, shard_rows: Sequence[np.ndarray], seed: int, window_shards: int = 16) -> None:
        if not any(len(rows) for rows in shard_rows):
            raise ValueError("no training samples: the split leaves none to train on")
        self.shard_rows = [np.asarray(rows) for rows in shard_rows]
        self.seed = seed
        self.window_shards = window_shards
        self.num_samples = sum(len(rows) for rows in self.shard_rows)
        self._epoch_layout = lru_cache(maxsize=2)(self._lay_out_epoch)
        self._window = lru_cache(maxsize=4)(self._shuffle_window)

    def __reduce__(self) -> tuple[type[SampleOrder], tuple[list[np.ndarray], int, int]]:
        return type(self), (self.shard_rows, self.seed, self.window_shards)  # caches stay behind: they do not pickle

    def rows(self, step: int, global_batch_size: int) -> list[int]:
        """Row numbers of the whole global batch of ``step``."""
        first = step * global_batch_size
        return [self._row(place) for place in range(first, first + global_batch_size)]

    def _row(self, place: int) -> int:
        epoch, offset = divmod(place, self.num_samples)
        _, window_ends = self._epoch_layout(epoch)
        window = int(np.searchsorted(window_ends, offset, side="right"))
        start = int(window_ends[window - 1]) if window else 0
        return int(self._window(epoch, window)[offset - start])

    def _lay_out_epoch(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """Shuffled shards, and where each window of them ends."""
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
        return _generator(self.seed, ORDER, *address)


class BucketOrder:
    """Batches of one bucket each, each bucket in proportion to its samples.

    The buckets lie one after the other on a circle; each step goes on by the golden section of it, so that every
    stretch of steps, short or long, meets each bucket about as often as its share says (a Weyl sequence). Within a
    bucket its own order goes on from batch to batch; one of fewer samples than a batch repeats them within it.
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
        """Row numbers of the whole global batch of ``step``."""
        chosen, turns = self._turns(1 << step.bit_length())
        return self.buckets[chosen[step]].rows(int(turns[step]), global_batch_size)

    def _lay_out(self, num_steps: int) -> tuple[np.ndarray, np.ndarray]:
        """The bucket of each step, and how many earlier steps had the same."""
        places = (_generator(self.seed, BUCKETS).random() + GOLDEN_SECTION * np.arange(num_steps)) % 1
        chosen = np.minimum(np.searchsorted(self._ends, places, side="right"), len(self.buckets) - 1)
        turns = np.zeros(num_steps, np.int64)
        for bucket in range(len(self.buckets)):
            steps = np.flatnonzero(chosen == bucket)
            turns[steps] = np.arange(len(steps))
        return chosen, turns


def _generator(seed: int, *address: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(np.random.SeedSequence((seed, *address))))


def rank_slots(global_batch_size: int, rank: int, world_size: int) -> range:
    """This rank's slice of a global batch; sizes differ by at most one."""
    if global_batch_size < world_size:
        raise ValueError(
            f"train.global_batch_size ({global_batch_size}) is smaller than the number of workers ({world_size}): "
            "raise it or ask for fewer workers"
        )
    return range(rank * global_batch_size // world_size, (rank + 1) * global_batch_size // world_size)


def batches_alike(kinds: Sequence[Hashable], most: int) -> list[list[int]]:
    """The places of ``kinds``, at most so many at a time and none together with one of another kind."""
    places: dict[Hashable, list[int]] = {}
    for place, kind in enumerate(kinds):
        places.setdefault(kind, []).append(place)
    return [alike[start : start + most] for alike in places.values() for start in range(0, len(alike), most)]


def evenly_spaced(items: Sequence[T], most: int) -> list[T]:
    """At most ``most`` of them, from the first to the last."""
    places = np.linspace(0, len(items) - 1, min(most, len(items))).round().astype(int)
    return [items[place] for place in places]
