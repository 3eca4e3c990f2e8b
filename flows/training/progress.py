"""Training progress, from Ray Train's controller to the terminal and to MLflow.

The controller process runs on the driver's machine and appends each report to a file; a thread of the driver reads it.
"""

from __future__ import annotations

import json
import logging
import math
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ray.train import UserCallback

if TYPE_CHECKING:
    from flows.training.task import TrainingTask

logger = logging.getLogger(__name__)

POLL_SECONDS = 0.5
LINE_EVERY_SECONDS = 15.0


class WriteReports(UserCallback):
    """Appends rank 0's reports to a file, one JSON object a line."""

    def __init__(self, path: str) -> None:
        self.path = path

    def after_report(self, run_context: Any, metrics: list[dict[str, Any]], checkpoint: Any) -> None:
        """Called on the controller once every worker has reported."""
        row = {name: value for name, value in metrics[0].items() if isinstance(value, (int, float))}
        with open(self.path, "a") as stream:
            stream.write(json.dumps(row | {"checkpoint": checkpoint is not None}) + "\n")

    def after_exception(self, run_context: Any, worker_exceptions: dict[int, Exception]) -> None:
        """Called on the controller when workers failed; training starts again from the last checkpoint."""
        with open(self.path, "a") as stream:
            stream.write(json.dumps({"failed_workers": sorted(worker_exceptions)}) + "\n")


class FollowReports:
    """``with FollowReports(path, name, task, on_rows):`` shows progress and hands on new rows until the block ends."""

    def __init__(
        self, path: Path, name: str, task: TrainingTask, on_rows: Callable[[list[dict[str, float]]], None]
    ) -> None:
        self.path, self.on_rows = path, on_rows
        self.position = 0
        kind = _Bar if sys.stderr.isatty() else _Lines
        self.display = kind(name, task.spec.num_steps, task.score)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="training-progress", daemon=True)

    def __enter__(self) -> FollowReports:
        self.path.touch()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self._read()
        self.display.close()

    def _run(self) -> None:
        while not self._stop.wait(POLL_SECONDS):
            self._read()

    def _read(self) -> None:
        with self.path.open() as stream:
            stream.seek(self.position)
            rows = []
            while (line := stream.readline()).endswith("\n"):
                self.position = stream.tell()
                row = json.loads(line)
                if "failed_workers" in row:
                    logger.warning("training workers %s failed; starting again from the last checkpoint", row)
                    self.display.restart()
                elif not row.pop("checkpoint"):
                    rows.append(row)
        if rows:
            self.display.show(rows)
            self.on_rows(rows)


class _Lines:
    """One log line now and then, for logs and pipes."""

    def __init__(self, name: str, num_steps: int, score: str) -> None:
        self.name, self.num_steps, self.score = name, num_steps, score
        self.last = -math.inf
        self.known: dict[str, float] = {}

    def show(self, rows: list[dict[str, float]]) -> None:
        for row in rows:
            self.known |= row
        if time.monotonic() - self.last > LINE_EVERY_SECONDS or self.known["step"] == self.num_steps:
            self.last = time.monotonic()
            figures = _figures(self.known, self.score)
            logger.info("%s: step %d/%d, %s", self.name, self.known["step"], self.num_steps, figures)

    def restart(self) -> None:
        self.last = -math.inf  # how far back that was is said at once

    def close(self) -> None:
        pass


class _Bar:
    """A live bar on a terminal."""

    def __init__(self, name: str, num_steps: int, score: str) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        self.progress = Progress(
            TextColumn(name),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.description}"),
            console=Console(stderr=True),
        )
        self.score = score
        self.task = self.progress.add_task("starting workers", total=num_steps)
        self.known: dict[str, float] = {}
        self.progress.start()

    def show(self, rows: list[dict[str, float]]) -> None:
        for row in rows:
            self.known |= row
        self.progress.update(self.task, completed=self.known["step"], description=_figures(self.known, self.score))

    def restart(self) -> None:
        self.progress.update(self.task, description="starting workers again")

    def close(self) -> None:
        self.progress.stop()


def _figures(row: dict[str, float], score: str) -> str:
    parts = [("loss", "train/loss", ".4f"), (score, score, ".4f"), ("samples/s", "samples_per_second", ".1f")]
    return ", ".join(f"{label} {row[name]:{form}}" for label, name, form in parts if name in row)
