"""Figures that a training leaves."""

from __future__ import annotations

from flows.stages.record import Figures
from flows.training.goodput import TimeSplit
from flows.training.history import Resume, UnusableCheckpoint, resume_tags
from flows.training.initial import NO_MEANING, Initialisation, Meaning

INIT_TAG = "unetflow.init"
"""Tag of a run: weights that its training started from."""

PRECISION_TAG = "unetflow.precision"
"""Tag of a run: numeric precision of its training."""


class TrainingFigures(Figures):
    """Figures of a training."""

    step: int
    """Step of the selected checkpoint."""
    run_id: str | None
    """MLflow run; None where the server could not be reached."""
    num_workers: int | tuple[int, int]
    precision: str = ""
    """Numeric precision that the selected checkpoint was trained in, at its end. Empty: not
    recorded, by an earlier version."""
    init: Initialisation | None = None
    """Weights that training was initialised from; None: random ones."""
    meaning: Meaning = NO_MEANING
    """Meaning of the weights beyond their architecture."""
    resumes: tuple[Resume, ...] = ()
    """Every resume of the training, those of earlier attempts among them."""
    unusable_checkpoints: tuple[UnusableCheckpoint, ...] = ()
    """Checkpoints that were skipped when the weights were selected."""
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
        """Return what its resumes repeated and skipped, what it started from, and its precision."""
        init = {INIT_TAG: self.init.origin.source} if self.init else {}
        return resume_tags(self.resumes) | init | ({PRECISION_TAG: self.precision} if self.precision else {})
