"""Clock of a worker's training loop: how long it waited for data, validated, saved and reported; the rest are steps.

It is read on the host and never waits for a GPU: what the GPU still computes is seen where the loop waits for it.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Literal, NamedTuple, TypeVar

from data_pipelines.specs import Spec

Part = Literal["data", "validation", "checkpoint", "report"]
B = TypeVar("B")


class LoopTimes(Spec):
    """Wall time of a training loop since its first batch, in seconds."""

    elapsed: float = 0.0
    """All of it."""
    data: float = 0.0
    """Waiting for the next batch."""
    validation: float = 0.0
    """Validations."""
    checkpoint: float = 0.0
    """Writing checkpoints; they are uploaded while training continues."""
    report: float = 0.0
    """Waiting until Ray Train's controller takes a report."""
    num_validations: int = 0
    num_checkpoints: int = 0

    @property
    def stepping(self) -> float:
        """Seconds of optimizer steps."""
        return max(0.0, self.elapsed - self.data - self.validation - self.checkpoint - self.report)


class LoopReport(NamedTuple):
    """Progress of the loop in a report to Ray Train."""

    at: float
    """Time of the report, on the monotonic clock of the driver's machine, in seconds."""
    step: int
    times: LoopTimes
    is_checkpoint: bool


class LoopClock:
    """Measures one loop. Parts do not nest."""

    def __init__(self) -> None:
        self._started: float | None = None
        self._seconds: dict[Part, float] = {"data": 0.0, "validation": 0.0, "checkpoint": 0.0, "report": 0.0}
        self._count: dict[Part, int] = dict.fromkeys(self._seconds, 0)
        self._running: tuple[Part, float] | None = None

    def waiting(self, batches: Iterable[B]) -> Iterator[B]:
        """Iterate over batches; the clock starts with the first one: waiting for it is part of the start-up."""
        source = iter(batches)
        while True:
            with self.measure("data"):
                batch = next(source, None)
            if batch is None:
                return
            if self._started is None:
                self._started, self._seconds["data"] = time.perf_counter(), 0.0
            yield batch

    @contextmanager
    def measure(self, part: Part) -> Iterator[None]:
        """Count the block as ``part``."""
        since = time.perf_counter()
        self._running = part, since
        self._count[part] += 1
        try:
            yield
        finally:
            self._seconds[part] += time.perf_counter() - since
            self._running = None

    def read(self) -> LoopTimes:
        """Read the clock, also within a measured block."""
        now = time.perf_counter()
        seconds = dict(self._seconds)
        if self._running is not None:
            part, since = self._running
            seconds[part] += now - since
        return LoopTimes(
            elapsed=now - (now if self._started is None else self._started),
            **seconds,
            num_validations=self._count["validation"],
            num_checkpoints=self._count["checkpoint"],
        )
