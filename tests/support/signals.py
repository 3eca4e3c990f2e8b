"""Signals in a test: whoever handled them before raises an error that can be caught."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager


class DeliveredError(Exception):
    """Raised by the handler, with the name of the signal."""


def deliver(number: int, frame: object) -> None:
    """Handle a signal."""
    raise DeliveredError(signal.Signals(number).name)


@contextmanager
def delivered_signals() -> Iterator[None]:
    """Handle SIGTERM and SIGINT by ``deliver`` for the length of the block."""
    before = {each: signal.signal(each, deliver) for each in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
