"""Listener of an ablation: shows how many runs are done."""

from __future__ import annotations

from typing import Any

from ray.tune import Callback

from data_pipelines.progress import Progress


class RunListener(Callback):
    """Counts the runs that have ended."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._num_ended = 0

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Count a run."""
        self._num_ended += 1
        self._progress.update(self._num_ended)
