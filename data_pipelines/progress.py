"""Progress of long loops: a live bar on a terminal, a log line now and then elsewhere."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Generator, Iterable, Iterator
from typing import TypeVar

logger = logging.getLogger(__name__)

LINE_EVERY_SECONDS = 10.0

T = TypeVar("T")


def track(items: Iterable[tuple[int, T]], verb: str, unit: str, total: int) -> Iterator[T]:
    """Hand on each item; the number beside it says how many ``unit`` it finishes, of ``total``."""
    advance = _bar(verb, unit, total) if sys.stderr.isatty() else _lines(verb, unit, total)
    next(advance)
    for finished, item in items:
        advance.send(finished)
        yield item
    advance.close()


def _lines(verb: str, unit: str, total: int) -> Generator[None, int, None]:
    done, last = 0, time.monotonic()
    while True:
        done += yield
        if time.monotonic() - last > LINE_EVERY_SECONDS or done >= total:
            last = time.monotonic()
            logger.info("%s: %d/%d %s", verb, done, total, unit)


def _bar(verb: str, unit: str, total: int) -> Generator[None, int, None]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn(verb), BarColumn(), MofNCompleteColumn(), TextColumn(unit), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task(verb, total=total)
        while True:
            progress.advance(task, (yield))
