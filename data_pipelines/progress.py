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

    def show(self, completed: int, remark: str) -> None:
        """Show the number of completed units."""
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

    def update(self, completed: int, remark: str = "") -> None:
        """Report that ``completed`` units are done; ``remark``, such as a loss, follows the count."""
        self._display.show(completed, remark)


def track(items: Iterable[tuple[int, T]], title: str, unit: str, total: int) -> Iterator[T]:
    """Iterate over ``items`` with progress; each comes with the number of the ``total`` units that it completes."""
    with Progress(title, total, unit) as progress:
        completed = 0
        for count, item in items:
            completed += count
            progress.update(completed)
            yield item


class _Lines:
    """A log line every few seconds, for logs and pipes."""

    def __init__(self, title: str, total: int | None, unit: str) -> None:
        self.title, self.total, self.unit = title, total, unit
        self.last_line = -math.inf  # the first update is logged at once
        self.completed = 0

    def expect(self, total: int) -> None:
        self.total = total

    def show(self, completed: int, remark: str) -> None:
        went_back = completed < self.completed  # after a restart: logged at once
        self.completed = completed
        is_done = self.total is not None and completed >= self.total
        if time.monotonic() - self.last_line > SECONDS_BETWEEN_LINES or is_done or went_back:
            self.last_line = time.monotonic()
            text = f"{completed}/{'?' if self.total is None else self.total} {self.unit}"
            text += f", {remark}" if remark else ""
            logger.info("%s: %s", self.title, text)

    def close(self) -> None:
        pass


class _Bar:
    """A live bar on a terminal."""

    def __init__(self, title: str, total: int | None, unit: str) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as RichProgress

        columns = (TextColumn(title), BarColumn(), MofNCompleteColumn(), TextColumn(unit), TimeRemainingColumn())
        self.progress = RichProgress(*columns, TextColumn("{task.description}"), console=Console(stderr=True))
        self.task = self.progress.add_task("", total=total)
        self.progress.start()

    def expect(self, total: int) -> None:
        self.progress.update(self.task, total=total)

    def show(self, completed: int, remark: str) -> None:
        self.progress.update(self.task, completed=completed, description=remark)

    def close(self) -> None:
        self.progress.stop()
