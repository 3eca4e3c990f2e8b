"""Figures that a training leaves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from data_pipelines.specs import Spec
from flows.stages.record import Figures
from flows.training.goodput import TimeSplit
from flows.training.history import Resume, UnusableCheckpoint, resume_tags


class WarmStart(Spec):
    """Weights that a training starts from."""

    uri: str
    sha256: str
    trained_on: str
    """URI of the table of the samples that shaped them."""


class TrainingFigures(Figures):
    """Figures of a training."""

    step: int
    """Step of the selected checkpoint."""
    run_id: str | None
    """MLflow run; None where the server could not be reached."""
    num_workers: int | tuple[int, int]
    warm_start: WarmStart | None = None
    """Weights that it started from; None: random ones."""
    bound_to: Mapping[str, Any] | None = None
    """What the weights are of no use without, by field of the configuration: digests of other networks, settings of
    the noise process. None: not recorded, by an earlier version."""
    resumes: tuple[Resume, ...] = ()
    """Every resume of the training, those of earlier attempts among them."""
    unusable_checkpoints: tuple[UnusableCheckpoint, ...] = ()
    """Checkpoints that were passed over when the weights were selected."""
    times: TimeSplit | None = None
    """Wall time over all attempts, by what it was spent on. None: not recorded, by an earlier version."""

    earlier_attempts_seconds: float = 0.0
    """Wall time of the attempts before the one that finished."""

    def earlier_seconds(self) -> float:
        """Return the wall time of the attempts before the one that finished."""
        return self.earlier_attempts_seconds

    def run_metrics(self) -> dict[str, float]:
        """Return the goodput, and what the wall time was spent on."""
        return self.times.metrics() if self.times else {}

    def run_tags(self) -> dict[str, str]:
        """Return what its resumes repeated and passed over."""
        return resume_tags(self.resumes)
