"""The samples of an index by split and bucket, and the loss of held-out samples."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from data_pipelines.loading.loader import Assemble, StepBatches
from data_pipelines.loading.order import BucketOrder, SampleOrder, evenly_spaced, group_alike
from data_pipelines.shards.index import read_table
from data_pipelines.shards.reader import ShardReader
from flows.training.task import TrainingTask
from unet_models.distributed import sum_over_ranks, world_size
from unet_models.precision import autocast
from unet_models.specs.loop import LoopSpec
from unet_models.training.objectives import Objective

VALIDATION_BATCH = 32
"""Held-out samples in one forward pass, where ``micro_batch_size`` is not less."""


@dataclass(frozen=True, slots=True)
class SplitShards:
    """Shards, and the rows of their index on either side of the split."""

    reader: ShardReader
    train_rows: np.ndarray
    val_rows: np.ndarray
    bucket_of: np.ndarray
    """Number of the bucket of every row: samples of one bucket have one size and may be stacked."""

    @classmethod
    def open(cls, task: TrainingTask, bucket: str = "") -> SplitShards:
        """Read the index; equal values of its column ``bucket`` mean equal sizes. Without it all sizes are equal."""
        index = read_table(task.index_uri)
        split = np.array(index["split"].to_pylist())
        values = [str(value) for value in index[bucket].to_pylist()] if bucket else [""] * len(split)
        numbers = {value: number for number, value in enumerate(dict.fromkeys(values))}
        return cls(
            reader=ShardReader(index, task.shards_uri),
            train_rows=np.flatnonzero(split == "train"),
            val_rows=np.flatnonzero(split == "val"),
            bucket_of=np.array([numbers[value] for value in values], dtype=int),
        )

    def batches(self, assemble: Assemble, spec: LoopSpec, rank: int) -> StepBatches:
        """Build this rank's share of every step's batch of training samples."""
        buckets = self._by_bucket(self.train_rows) or [self.train_rows]  # SampleOrder reports that there are none
        orders = [SampleOrder(self._by_shard(rows), spec.seed) for rows in buckets]
        order = orders[0] if len(orders) == 1 else BucketOrder(orders, spec.seed)
        return StepBatches(order, assemble, spec.global_batch_size, rank, world_size())

    def val_share(self, count: int, rank: int) -> list[int]:
        """Return this rank's rows of at most ``count`` held-out samples, evenly spaced over the split."""
        return evenly_spaced(self.val_rows.tolist(), count)[rank :: world_size()]

    def in_batches(self, rows: list[int], size: int) -> list[list[int]]:
        """Group rows into batches of at most ``size``, each of one bucket."""
        buckets = [int(self.bucket_of[row]) for row in rows]
        return [[rows[place] for place in batch] for batch in group_alike(buckets, size)]

    def _by_bucket(self, rows: np.ndarray) -> list[np.ndarray]:
        buckets = self.bucket_of[rows]
        return [rows[buckets == bucket] for bucket in np.unique(buckets)]

    def _by_shard(self, rows: np.ndarray) -> list[np.ndarray]:
        """Split rows by shard, over all shards with training samples: of one bucket, some shards have none."""
        shards = self.reader.shard_of
        return [rows[shards[rows] == shard] for shard in np.unique(shards[self.train_rows])]


def validation_batch(spec: LoopSpec) -> int:
    """Return how many held-out samples one forward pass takes."""
    return min(VALIDATION_BATCH, spec.micro_batch_size or VALIDATION_BATCH)


@dataclass(frozen=True, slots=True)
class HeldOutLoss:
    """Mean loss of held-out samples, with the same noise at every validation."""

    spec: LoopSpec
    objective: Objective
    assemble: Assemble
    batches: list[list[int]]
    """This rank's rows of the index."""
    device: torch.device

    @torch.no_grad()
    def __call__(self, model: nn.Module) -> dict[str, float]:
        sums = torch.zeros(2, dtype=torch.float64)
        for rows in self.batches:
            batch = self.assemble(rows, rows, self.spec.num_steps).to(self.device)  # a step that training never has
            with autocast(self.spec.precision, self.device):
                losses = self.objective(model, batch)
            sums += torch.tensor([float(losses.double().sum()), len(rows)], dtype=torch.float64)
        total, count = sum_over_ranks(sums, self.device).tolist()
        return {"val/loss": total / count} if count else {}
