"""Listener of a search: keeps every trial that ends, and shows how the search goes."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from typing import Any

from ray.tune import Callback

from data_pipelines import storage
from data_pipelines.progress import Progress
from flows.tuning.space import Values, describe
from flows.tuning.trial import Outcome, Trial

logger = logging.getLogger(__name__)


class TrialListener(Callback):
    """Writes each ended trial to the folder ``uri``, and shows the seconds that passed of ``total``."""

    def __init__(self, values: Mapping[int, Values], uri: str, progress: Progress, total: int, worst: float) -> None:
        """``worst`` is the score of a trial whose worker failed."""
        self._values, self._uri, self._progress, self._total, self._worst = values, uri, progress, total, worst
        self._shown = -1
        self._began = time.monotonic()
        self._num_ended = 0
        self.failures: list[str] = []
        """Reasons for which the worker of trial 0 failed."""
        self.is_closed = False
        """True once the search was stopped: what ends then is no result, since what its trials need is taken away."""

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Keep the trial's last report, and tell the score of one that trained to its end."""
        result = trial.last_result or {}
        number = trial.config["number"]
        self._num_ended += 1
        if "score" not in result:  # the time was over before its first report
            return
        outcome = Outcome.model_validate({name: result[name] for name in Outcome.model_fields})
        ended = self._keep(number, outcome)
        if ended.is_whole:
            logger.info("search: trial %d: %.4f: %s", number, outcome.score, describe(ended.values))

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Keep a trial whose worker failed as one that was refused, and tell of it; trial 0 is tried again."""
        number, reason = trial.config["number"], _reason(trial)
        self._num_ended += 1
        logger.warning("search: trial %d: its worker failed: %s", number, reason)
        if self._values[number]:
            self._keep(number, Outcome(score=self._worst, refused=f"its worker failed: {reason}"))
        else:
            self.failures.append(reason)

    def _keep(self, number: int, outcome: Outcome) -> Trial:
        ended = Trial(number=number, values=dict(self._values[number]), outcome=outcome)
        if self.is_closed:
            return ended
        storage.write_bytes(storage.join(self._uri, f"{number:05d}.json"), ended.model_dump_json().encode())
        return ended

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        """Show the time."""
        seconds = int(time.monotonic() - self._began)
        if seconds > self._shown:  # Ray calls this several times a second, and after the time is over
            self._shown = seconds
            self._progress.update(min(seconds, self._total - 1), f"{self._num_ended} trials ended")


def _reason(trial: Any) -> str:
    """Return the last line of what Ray knows of an error."""
    error = trial.get_error()
    return str(error).strip().splitlines()[-1] if error is not None else "unknown"
