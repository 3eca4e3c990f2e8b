"""Number of steps of a training: as configured, or as many as fit into the time that it may take."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from data_pipelines.batches import Batch
from data_pipelines.loading.loader import step_loader
from flows.training.task import Training, TrainingTask
from unet_models.specs.loop import LoopSpec
from unet_models.training.pace import SHARE, Pace, mean_pace, measure_pace


@dataclass(frozen=True, slots=True)
class Schedule:
    """Settings of the loop with the number of steps that is trained."""

    spec: LoopSpec
    seconds_per_step: float = 0.0
    """Measured pace from which the steps were counted; 0: their number was known."""
    validating_seconds: float = 0.0
    """Time of all validations at the measured pace, the measured one included."""
    measuring_seconds: float = 0.0
    """Time that measuring the pace took."""


def plan_steps(
    task: TrainingTask,
    known_steps: int | None,
    loader_processes: int,
    device: torch.device,
    rank: int,
    num_validations: int | None = None,
) -> Schedule:
    """Return the settings with the steps to train; every rank must call it, and gets the same.

    A training that has begun keeps the number of its checkpoints, ``known_steps``. Else, with ``within``, the pace is
    measured with a network and batches of its own: what is trained afterwards does not depend on it. With
    ``num_validations`` so many are spread over the steps, else one comes every ``validate_every_steps``.
    """
    spec = task.spec
    if spec.within is None:
        return Schedule(spec)
    if known_steps is not None:
        return Schedule(spec.counted(known_steps))
    phases = task.phases()
    pace = mean_pace([_measure(each, len(phases), loader_processes, device, rank) for each in phases])
    if num_validations is None:
        num_steps, every = pace.count_steps(spec.within, spec.validate_every_steps), spec.validate_every_steps
    else:
        num_steps = pace.count_steps_between(spec.within, num_validations)
        every = -(-num_steps // num_validations)
    return Schedule(
        spec.counted(num_steps).model_copy(update={"validate_every_steps": every}),
        pace.step_seconds,
        pace.validating_seconds(num_steps, every),
        pace.spent_seconds,
    )


def _measure(task: TrainingTask, num_phases: int, loader_processes: int, device: torch.device, rank: int) -> Pace:
    training = task.open(device, rank)
    return measure_pace(
        training.model,
        training.objective,
        lambda steps: read_steps(training, steps, loader_processes, device),
        training.validate,
        task.spec,
        device,
        share=SHARE / num_phases,
    )


def read_steps(training: Training, steps: range, loader_processes: int, device: torch.device) -> Iterator[Batch]:
    """Iterate over this rank's batches of ``steps``."""
    return step_loader(training.batches, steps, loader_processes, pin_memory=device.type == "cuda")
