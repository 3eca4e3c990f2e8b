"""Training progress, from Ray Train's controller to the terminal and to MLflow.

The controller process runs on the driver's machine and appends each report to a file; a thread of the driver reads it.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ray.train import UserCallback

from data_pipelines.progress import Progress
from flows.metrics import parse_metric_name
from flows.training.clock import LoopReport, LoopTimes
from flows.training.failures import describe_failures, final_error
from flows.training.history import Start

if TYPE_CHECKING:
    from flows.training.curves import CurveRow
    from flows.training.task import TrainingTask

logger = logging.getLogger(__name__)

POLL_SECONDS = 0.5
START = "start"
"""Name in a report of where the workers start, as JSON of ``flows.training.history.Start``."""
TIMES, AT = "times", "at"
"""Names in a report of ``LoopTimes`` as a dictionary, and of the controller's monotonic time, in seconds."""


class WriteReports(UserCallback):
    """Appends rank 0's reports to a file, one JSON object per line."""

    def __init__(self, path: str) -> None:
        self.path = path

    def after_report(self, run_context: Any, metrics: list[dict[str, Any]], checkpoint: Any) -> None:
        """Write a report; Ray calls this on the controller once every worker has reported."""
        if START in metrics[0]:
            self._append({START: metrics[0][START]})
            return
        row = {name: value for name, value in metrics[0].items() if isinstance(value, (int, float))}
        times = metrics[0].get(TIMES, {})
        self._append(row | {"checkpoint": checkpoint is not None, TIMES: times, AT: time.monotonic()})

    def after_exception(self, run_context: Any, worker_exceptions: dict[int, Exception]) -> None:
        """Write down which workers failed, and how; training restarts from the last checkpoint.

        Raises an error that a restart would only repeat: the controller then ends the training with it.
        """
        if final := final_error(worker_exceptions.values()):
            raise final
        self._append({"failed_workers": describe_failures(worker_exceptions)})

    def _append(self, row: dict[str, Any]) -> None:
        with open(self.path, "a") as stream:
            stream.write(json.dumps(row) + "\n")


class FollowReports:
    """``with FollowReports(path, name, task, on_rows, on_start, on_times):`` shows progress until the block ends.

    New rows are passed on to ``on_rows``, where workers start, for the first time or again, to ``on_start``, and what
    their loop spent its time on to ``on_times``, which returns the seconds that are left. ``on_poll`` is called each
    time that the file was looked at.
    """

    def __init__(
        self,
        path: Path,
        name: str,
        task: TrainingTask,
        on_rows: Callable[[list[CurveRow]], None],
        on_start: Callable[[Start], None],
        on_times: Callable[[LoopReport], float | None],
        on_poll: Callable[[], None] = lambda: None,
    ) -> None:
        self.path, self.on_rows, self.on_start, self.on_times = path, on_rows, on_start, on_times
        self.on_poll = on_poll
        self.shown = ("train/loss", task.score, "samples_per_second")
        self.known: CurveRow = {}
        self.position = 0
        self.seconds_left: float | None = None
        self.progress = Progress(name, None if task.spec.within else task.spec.num_steps, "steps")
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="training-progress", daemon=True)

    def __enter__(self) -> FollowReports:
        self.path.touch()
        self.progress.__enter__()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self._read()
        self.progress.__exit__()

    def _run(self) -> None:
        while not self._stop.wait(POLL_SECONDS):
            self._read()
            self.on_poll()

    def _read(self) -> None:
        rows: list[CurveRow] = []
        for row in self._new_lines():
            if "failed_workers" in row:
                for failure in row["failed_workers"]:
                    logger.warning("%s; restarting from the last checkpoint", failure)
            elif START in row:
                self._pass_on(rows)  # first: they are what was trained before
                rows = []
                start = Start.model_validate_json(row[START])
                self.progress.expect(start.num_steps)
                self.on_start(start)
            else:
                times, is_checkpoint = LoopTimes(**row.pop(TIMES)), row.pop("checkpoint")
                self.seconds_left = self.on_times(LoopReport(row.pop(AT), row["step"], times, is_checkpoint))
                rows += [] if is_checkpoint else [row]
        self._pass_on(rows)

    def _new_lines(self) -> Iterator[dict[str, Any]]:
        with self.path.open() as stream:
            stream.seek(self.position)
            while (line := stream.readline()).endswith("\n"):
                self.position = stream.tell()
                yield json.loads(line)

    def _pass_on(self, rows: list[CurveRow]) -> None:
        if rows:
            self._show(rows)
            self.on_rows(rows)

    def _show(self, rows: list[CurveRow]) -> None:
        for row in rows:
            self.known |= row
        values = {name: self.known[name] for name in dict.fromkeys(self.shown) if name in self.known}
        remark = ", ".join(_text(*item) for item in values.items())
        self.progress.update(int(self.known["step"]), remark, self.seconds_left)


def _text(name: str, value: float) -> str:
    known = parse_metric_name(name)
    label = f"{known.phase} {known.metric.title.lower()}".strip()
    return f"{label} {value:.4g}" if known.metric.better == "neither" else f"{label} {value:.4f}"
