"""Listener of an ablation: shows how many runs are done."""

from __future__ import annotations

from typing import Any

from ray.tune import Callback

from data_pipelines.progress import Progress
from flows.cluster.reservations import free_reservations


class RunListener(Callback):
    """Counts the runs that have ended."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._num_ended = 0

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Count a run."""
        self._num_ended += 1
        self._progress.update(self._num_ended)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Free what the training of a run had reserved whose process died: other runs would wait for it for ever."""
        free_reservations()
