"""Progress of long work on stderr: a live bar on a terminal, a log line every few seconds elsewhere."""

from __future__ import annotations

import logging
import math
import sys
import time
from collections.abc import Iterable, Iterator
from typing import Protocol, Self, TypeVar

logger = logging.getLogger(__name__)

SECONDS_BETWEEN_LINES = 10.0
"""Minimum time between two log lines."""

T = TypeVar("T")


class Display(Protocol):
    """Destination of progress."""

    def show(self, completed: int, remark: str, seconds_left: float | None) -> None:
        """Show the number of completed units, and the time that is left: estimated where it is None."""
        ...

    def expect(self, total: int) -> None:
        """Set the number of units there are."""
        ...

    def close(self) -> None:
        """Close the display, leaving its last state visible."""
        ...


class Progress:
    """``with Progress("shard", 200, "cases") as progress:`` then ``progress.update(17)``.

    Where the total is not known yet, it is None, and ``expect`` sets it.
    """

    def __init__(self, title: str, total: int | None, unit: str) -> None:
        kind = _Bar if sys.stderr.isatty() else _Lines
        self._display: Display = kind(title, total, unit)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._display.close()

    def expect(self, total: int) -> None:
        """Set the number of units there are."""
        self._display.expect(total)

    def update(self, completed: int, remark: str = "", seconds_left: float | None = None) -> None:
        """Report that ``completed`` units are done; ``remark``, such as a loss, follows the count.

        ``seconds_left`` is what somebody knows of the time left; None: it follows from the pace so far.
        """
        self._display.show(completed, remark, seconds_left)


def track(items: Iterable[tuple[int, T]], title: str, unit: str, total: int) -> Iterator[T]:
    """Iterate over ``items`` with progress; each comes with the number of the ``total`` units that it completes."""
    with Progress(title, total, unit) as progress:
        completed = 0
        for count, item in items:
            completed += count
            progress.update(completed)
            yield item


def rounded_duration(seconds: float) -> str:
    """Write a duration with the unit that suits it; a negative one is 0."""
    seconds = max(0.0, seconds)
    for limit, size, unit in ((120, 1, "s"), (7200, 60, "min"), (172800, 3600, "h")):
        if seconds < limit:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds / 86400:.1f} days"


class _Lines:
    """A log line every few seconds, for logs and pipes."""

    def __init__(self, title: str, total: int | None, unit: str) -> None:
        self.title, self.total, self.unit = title, total, unit
        self.last_line = -math.inf  # the first update is logged at once
        self.completed = 0
        self.first: tuple[float, int] | None = None
        """Time and count of the first update since a start or restart: the pace is counted from there."""

    def expect(self, total: int) -> None:
        self.total = total

    def show(self, completed: int, remark: str, seconds_left: float | None) -> None:
        now, went_back = time.monotonic(), completed < self.completed  # after a restart: logged at once
        self.completed = completed
        if self.first is None or went_back:
            self.first = now, completed
        is_done = self.total is not None and completed >= self.total
        if now - self.last_line > SECONDS_BETWEEN_LINES or is_done or went_back:
            self.last_line = now
            left = None if is_done else self._seconds_left(now) if seconds_left is None else seconds_left
            count = f"{completed}/{'?' if self.total is None else self.total} {self.unit}"
            remarks = [remark, "" if left is None else f"{rounded_duration(left)} left"]
            logger.info("%s: %s", self.title, ", ".join([count, *filter(None, remarks)]))

    def _seconds_left(self, now: float) -> float | None:
        """Return the time left at the pace so far; None where there is none yet."""
        began, completed = self.first or (now, self.completed)
        if self.total is None or self.completed <= completed:
            return None
        return (now - began) / (self.completed - completed) * (self.total - self.completed)

    def close(self) -> None:
        pass


class _Bar:
    """A live bar on a terminal."""

    def __init__(self, title: str, total: int | None, unit: str) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
        from rich.progress import Progress as RichProgress

        columns = (
            TextColumn(title),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn(unit),
            TextColumn("{task.fields[left]}"),
        )
        self.progress = RichProgress(*columns, TextColumn("{task.description}"), console=Console(stderr=True))
        self.task = self.progress.add_task("", total=total, left="")
        self.progress.start()

    def expect(self, total: int) -> None:
        self.progress.update(self.task, total=total)

    def show(self, completed: int, remark: str, seconds_left: float | None) -> None:
        left = self.progress.tasks[self.task].time_remaining if seconds_left is None else seconds_left
        text = "" if left is None else f"{rounded_duration(left)} left"
        self.progress.update(self.task, completed=completed, description=remark, left=text)

    def close(self) -> None:
        self.progress.stop()
