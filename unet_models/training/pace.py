"""Pace of a training, measured before it begins: how many steps fit into a time."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import TypeVar

import torch
from torch import nn

from data_pipelines.batches import Batch
from unet_models.distributed import sum_over_ranks, world_size
from unet_models.specs.loop import LoopSpec
from unet_models.training.fit import fit
from unet_models.training.objectives import Objective
from unet_models.training.state import TrainState, build_state

MAX_SECONDS = 60.0
SHARE = 0.05
"""Share of the time that measuring takes at most, where two steps are not longer."""
NUM_SLOW, NUM_TIMED = 2, 2
"""First steps, which allocate and compile and do not count; least number of those that do."""
NO_END = 1 << 30

AnyBatch = TypeVar("AnyBatch", bound=Batch)


@dataclass(frozen=True, slots=True)
class Pace:
    """Wall times of one training, means over the ranks."""

    step_seconds: float
    validation_seconds: float
    """0: nothing is held out."""
    spent_seconds: float = 0.0
    """Time that measuring took."""

    def count_steps(self, seconds: float, validate_every_steps: int) -> int:
        """Return how many steps fit into what is left of ``seconds``, with their validations; at least 1.

        The last step is validated, too.
        """
        left = seconds - self.spent_seconds - self.validation_seconds
        return max(1, int(left / (self.step_seconds + self.validation_seconds / validate_every_steps)))

    def count_steps_between(self, seconds: float, num_validations: int) -> int:
        """Return how many steps fit into what is left of ``seconds`` beside so many validations; at least 1."""
        left = seconds - self.spent_seconds - num_validations * self.validation_seconds
        return max(1, int(left / self.step_seconds))

    def validating_seconds(self, num_steps: int, validate_every_steps: int) -> float:
        """Return the time of all validations of a training: the measured one, those on the way, that of the end."""
        return (2 + num_steps // validate_every_steps) * self.validation_seconds


def measure_pace(
    model: nn.Module,
    objective: Objective[AnyBatch],
    read: Callable[[range], Iterator[AnyBatch]],
    validate: Callable[[nn.Module], dict[str, float]],
    spec: LoopSpec,
    device: torch.device,
    share: float = SHARE,
) -> Pace:
    """Train ``model``, which is of no use afterwards, for a small ``share`` of ``spec.within``, and validate it once.

    ``read`` reads this rank's batches of steps. Every rank must call it, and gets the same result.
    """
    assert spec.within is not None
    began = time.perf_counter()
    endless = spec.model_copy(update={"num_steps": NO_END})
    state = build_state(model, endless, device)
    watch = _Stopwatch(min(MAX_SECONDS * share / SHARE, share * spec.within), device)
    batches = read(range(NO_END))
    fit(state, objective, batches, endless, watch)
    validation = _time_validation(validate, state.model, device) if spec.validate_cases else 0.0
    seconds = torch.tensor([watch.step_seconds, validation, time.perf_counter() - began], dtype=torch.float64)
    return Pace(*(sum_over_ranks(seconds, device) / world_size()).tolist())


def mean_pace(phases: Sequence[Pace]) -> Pace:
    """Return the pace of phases of as many steps each; validations take what they take in the last."""
    return Pace(
        sum(each.step_seconds for each in phases) / len(phases),
        phases[-1].validation_seconds,
        sum(each.spent_seconds for each in phases),
    )


def _time_validation(
    validate: Callable[[nn.Module], dict[str, float]], model: nn.Module, device: torch.device
) -> float:
    began = time.perf_counter()
    found = validate(model.eval())
    _finish(device)
    return time.perf_counter() - began if found else 0.0


@dataclass(slots=True)
class _Stopwatch:
    """Hooks that note when each step begins, and end the loop after ``seconds``."""

    seconds: float
    device: torch.device
    times: list[float] = field(default_factory=list)

    @property
    def step_seconds(self) -> float:
        """Median wall time of a step, reading its batch included."""
        steps = [end - begin for begin, end in zip(self.times, self.times[1:], strict=False)]
        return median(steps[NUM_SLOW:])

    def stop_reason(self) -> int:
        """Note the time; the loop asks once in every step."""
        _finish(self.device)
        self.times.append(time.perf_counter())
        is_enough = len(self.times) > NUM_SLOW + NUM_TIMED
        return int(is_enough and self.times[-1] - self.times[0] >= self.seconds)

    def log(self, step: int, metrics: dict[str, float]) -> None:
        """Report nothing."""

    def validate(self, state: TrainState) -> dict[str, float]:
        """Measure nothing: one validation is timed by itself."""
        return {}

    def checkpoint(self, state: TrainState, metrics: dict[str, float]) -> None:
        """Save nothing."""


def _finish(device: torch.device) -> None:
    """Wait until a GPU has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
