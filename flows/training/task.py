"""A training task: described as data, sent to the workers, opened there."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn

from data_pipelines.loading.loader import StepBatches
from data_pipelines.specs import Spec
from unet_models.specs.loop import LoopSpec
from unet_models.training.objectives import Objective

Validate = Callable[[nn.Module], dict[str, float]]
"""Measures a model in evaluation mode over all ranks: metric name to value; empty where nothing is held out."""


@dataclass(slots=True)
class Training:
    """An opened task: what one rank needs for ``unet_models.training.fit.fit``."""

    model: nn.Module
    objective: Objective
    batches: StepBatches
    validate: Validate


class TrainingTask(Spec, ABC):
    """Everything a worker needs to know of what it trains; travels as JSON beside its class."""

    score: ClassVar[str]
    """Validation metric by which the best checkpoint is selected; its direction is that of the table of metrics."""
    spec: LoopSpec
    """Settings of the loop, and in each task those of its network and objective."""
    index_uri: str
    shards_uri: str
    of_classes: ClassVar[str] = ""
    """Pattern of the names of weights that have a row for each class; empty: there are none."""
    initial_uri: str = ""
    """Weights to start from, those that fit the network; empty: random ones."""

    @abstractmethod
    def build_model(self) -> nn.Module:
        """Build the network, on the CPU. Every rank builds the same weights."""

    def phases(self) -> Sequence[TrainingTask]:
        """Return a task for each part of the training, of the same number of steps, whose pace is another."""
        return [self]

    @abstractmethod
    def open(self, device: torch.device, rank: int) -> Training:
        """Build the network (not yet on ``device``) and open the data."""
