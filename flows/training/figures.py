"""Figures that a training leaves."""

from __future__ import annotations

from data_pipelines.specs import Spec
from flows.stages.record import Figures


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
