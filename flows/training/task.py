"""A training task: described as data, sent to the workers, opened there."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
import torch.distributed as dist
from torch import nn

from data_pipelines.loading.loader import StepBatches
from data_pipelines.loading.order import BucketOrder, SampleOrder, batches_alike, evenly_spaced
from data_pipelines.shards.reader import ShardReader
from data_pipelines.shards.index import read_table
from data_pipelines.specs import Spec
from unet_models.precision import autocast
from unet_models.distributed import world_size
from unet_models.training.objectives import Objective
from unet_models.specs.loop import LoopSpec

BATCH = 32
"""Held-out samples looked at together."""


@dataclass(slots=True)
class Training:
    """An opened task: what one rank needs for ``unet_models.fit.fit``."""

    model: nn.Module
    objective: Objective
    batches: StepBatches
    validate: Callable[[nn.Module], dict[str, float]]
    """Figures of a model in evaluation mode, over all ranks; empty where there is nothing to look at."""


class TrainingTask(Spec, ABC):
    """Everything a worker needs to know of what it trains; travels as JSON."""

    score: ClassVar[str]
    """The validation figure by which the best checkpoint is chosen."""
    higher_is_better: ClassVar[bool] = True
    spec: LoopSpec
    """The settings of the loop, and in each task those of its network and objective."""
    index_uri: str
    shards_uri: str
    warm_start_uri: str = ""
    """Weights to begin with; empty: random ones."""

    @abstractmethod
    def open(self, device: torch.device, rank: int) -> Training:
        """Build the network (not yet on ``device``) and open the data. Every rank builds the same weights."""


@dataclass(frozen=True, slots=True)
class SplitShards:
    """Shards, and which of their samples are on which side."""

    reader: ShardReader
    train_rows: np.ndarray
    val_rows: np.ndarray
    bucket_of: np.ndarray
    """Number of the bucket of every row: samples of one size, which may be stacked."""

    @classmethod
    def open(cls, task: TrainingTask, bucket: str = "") -> SplitShards:
        """Read the index; equal values of its column ``bucket`` mean equal sizes, and without it all are equal."""
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

    def batches(self, assemble: Callable[..., Any], spec: LoopSpec, rank: int) -> StepBatches:
        """This rank's share of every step's batch of training samples."""
        buckets = self._by_bucket(self.train_rows) or [self.train_rows]  # SampleOrder says that there are none
        orders = [SampleOrder(self._by_shard(rows), spec.seed) for rows in buckets]
        order = orders[0] if len(orders) == 1 else BucketOrder(orders, spec.seed)
        return StepBatches(order, assemble, spec.global_batch_size, rank, world_size())

    def val_share(self, count: int, rank: int) -> list[int]:
        """This rank's rows of at most ``count`` held-out samples, which are evenly spaced."""
        return evenly_spaced(self.val_rows.tolist(), count)[rank :: world_size()]

    def in_batches(self, rows: list[int], size: int = BATCH) -> list[list[int]]:
        """At most ``size`` rows of one bucket at a time."""
        buckets = [int(self.bucket_of[row]) for row in rows]
        return [[rows[place] for place in batch] for batch in batches_alike(buckets, size)]

    def _by_bucket(self, rows: np.ndarray) -> list[np.ndarray]:
        buckets = self.bucket_of[rows]
        return [rows[buckets == bucket] for bucket in np.unique(buckets)]

    def _by_shard(self, rows: np.ndarray) -> list[np.ndarray]:
        """The rows in each shard that has training samples: none of them in some, where they are of one bucket."""
        shards = self.reader.shard_of
        return [rows[shards[rows] == shard] for shard in np.unique(shards[self.train_rows])]


@dataclass(frozen=True, slots=True)
class HeldOutLoss:
    """The mean loss of held-out samples, with the same noise each time."""

    spec: LoopSpec
    objective: Objective
    assemble: Callable[[Sequence[int], Sequence[int], int], Any]
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


def sum_over_ranks(values: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Element-wise sum of every rank's ``values``, on the CPU."""
    if world_size() == 1:
        return values
    values = values.to(device)
    dist.all_reduce(values)
    return values.cpu()
