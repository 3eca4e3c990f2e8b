"""Listener of a training: passes what the workers report on to MLflow, the history, the status and the alert."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from flows.registry.run_logger import WHOLE_RUN, RunLogger
from flows.stages.status import StatusKeeper
from flows.training.clock import LoopReport
from flows.training.forecast import Forecast
from flows.training.goodput import Ledger
from flows.training.history import HistoryKeeper, Start, resume_tags
from flows.training.stall import StallAlert

if TYPE_CHECKING:
    from flows.training.curves import CurveRow

logger = logging.getLogger(__name__)

SHOWN = {"loss": "train/loss", "gpu_memory_gib": "gpu_memory"}
"""Field of the status to the metric that it shows."""


@dataclass(slots=True)
class Listener:
    """Passes reports on to MLflow and to the history; ``with listener:`` is an attempt, whose time it books."""

    name: str
    run: RunLogger
    history: HistoryKeeper
    ledger: Ledger
    forecast: Forecast
    stall: StallAlert
    status: StatusKeeper
    start: Start
    """Most recent start of the workers."""
    is_training: bool = False
    """True once the workers of the current trainer have begun."""

    def __enter__(self) -> None:
        self.run.__enter__()

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.ledger.end(time.monotonic(), succeeded=kind is None)
        self._spend()
        if kind is None:
            self.run.log([{"step": WHOLE_RUN, **self.history.times.metrics()}])
        self.run.__exit__(kind)
        self.ledger.add_server(time.monotonic())
        self._spend()
        self.history.finish()

    def on_times(self, report: LoopReport) -> float | None:
        """Book the time of a report; return the seconds until the last step, as far as they are known."""
        self.ledger.add(report)
        self.forecast.add(report)
        self.stall.report()
        self._spend()
        pace, seconds_left = self.forecast.seconds_per_step, self.forecast.seconds_left
        self.status.update(
            step=report.step,
            seconds_left=seconds_left,
            steps_per_second=1 / pace if pace else None,
            goodput_percent=self.history.times.goodput_percent,
            **({"checkpoint_at": time.time()} if report.is_checkpoint else {}),
        )
        return seconds_left

    def _spend(self) -> None:
        self.history.spend(self.ledger.split(), self.ledger.num_trained)

    def on_rows(self, rows: list[CurveRow]) -> None:
        """Log reported values."""
        self.history.reach(int(rows[-1]["step"]))
        self.status.update(**{field: rows[-1][name] for field, name in SHOWN.items() if name in rows[-1]})
        self.run.log(rows)

    def on_start(self, start: Start) -> None:
        """Note where the workers start, and tell where they resume."""
        before, self.start, self.is_training = self.start, start, True
        if before.num_workers not in (0, start.num_workers):
            plural = "" if start.num_workers == 1 else "s"
            logger.warning("%s: training continues with %d worker%s", self.name, start.num_workers, plural)
        self.ledger.start(start.step, start.measuring_seconds)
        self.forecast.start(start.step, start.num_steps)
        self.stall.report()
        self.status.update(step=start.step, num_steps=start.num_steps, seconds_left=None, steps_per_second=None)
        if start.precision:
            logger.info("%s: %s", self.name, start.describe_precision())
        if start.seconds_per_step:
            logger.info("%s: %s", self.name, start.describe_pace(self.name))
        if resume := self.history.start(start):
            logger.warning("%s: %s", self.name, resume.describe())
            self.run.tag(resume_tags(self.history.resumes))
