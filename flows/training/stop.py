"""Announced ends of a training: who asks its workers to stop, and what they leave.

The driver asks through a file, which Ray Train's controller, a process of the same machine, reads. Light to import.
"""

from __future__ import annotations

import signal
import threading
import time
from concurrent.futures import Future, wait
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from types import FrameType
from typing import Any, Self, TypeVar

from data_pipelines.atomic import atomic_file
from data_pipelines.specs import Spec

T = TypeVar("T")
POLL_SECONDS = 0.2


class StopReason(IntEnum):
    """Reason for which workers stop before the last step; where ranks have several, the highest counts."""

    NONE = 0
    MORE_WORKERS = 1
    """The cluster has room for more workers."""
    WORKER_SIGTERM = 2
    """A worker received SIGTERM."""
    NODE_DRAINED = 3
    """Ray takes a worker's node away."""
    RUN_STOPPED = 4
    """The process of the run received SIGTERM or SIGINT."""

    @property
    def text(self) -> str:
        """Return the reason in words; empty where there is none."""
        return _TEXTS.get(self, "")


_TEXTS = {
    StopReason.MORE_WORKERS: "the cluster has room for more workers",
    StopReason.WORKER_SIGTERM: "a training worker received SIGTERM",
    StopReason.NODE_DRAINED: "Ray is about to take a node away",
    StopReason.RUN_STOPPED: "this run was asked to stop",
}


class Stopped(Spec):
    """Early end of a group of workers, all of them at the same step, whose checkpoint was taken; travels as JSON."""

    step: int
    reason: StopReason
    drained_nodes: tuple[str, ...] = ()
    """Ray's ids of the nodes that are taken away."""


@dataclass(frozen=True, slots=True)
class StopFile:
    """File through which the driver asks the workers to stop."""

    path: Path

    def ask(self, reason: StopReason) -> None:
        """Ask every worker of this training to stop."""
        with atomic_file(self.path) as partial:
            partial.write_text(str(int(reason)))

    def read(self) -> StopReason:
        """Return what was asked for."""
        return StopReason(int(self.path.read_text())) if self.path.exists() else StopReason.NONE

    def clear(self) -> None:
        """Take back what was asked for."""
        self.path.unlink(missing_ok=True)


class HeldSignals:
    """``with HeldSignals() as held:`` holds back the first SIGTERM or SIGINT; a second one ends the block at once.

    ``deliver`` passes on what was held. Outside the main thread, which alone may handle signals, nothing is held.
    """

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        """Signal that is held back."""
        self.since = 0.0
        """Time of its arrival on the monotonic clock, in seconds."""
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for each in (signal.SIGTERM, signal.SIGINT):
                if signal.getsignal(each) is not signal.SIG_IGN:  # as shells start what is to outlive Ctrl-C
                    self._before[each] = signal.signal(each, self._hold)
        return self

    def __exit__(self, *_: object) -> None:
        for each, handler in self._before.items():
            signal.signal(each, handler)
        self._before = {}

    def deliver(self) -> None:
        """Raise the held signal, if any, for whoever handled signals before the block."""
        if self.received is not None:
            self.__exit__()
            signal.raise_signal(self.received)

    def _hold(self, number: int, frame: FrameType | None) -> None:
        if self.received is not None:
            self.deliver()
            return
        self.received, self.since = signal.Signals(number), time.monotonic()


def in_thread(function: Any, name: str) -> Future[Any]:
    """Call a function in a daemon thread, which leaves the main one free to handle signals."""
    future: Future[Any] = Future()

    def run() -> None:
        try:
            future.set_result(function())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, name=name, daemon=True).start()
    return future


def is_ready(future: Future[Any]) -> bool:
    """Wait a moment, and tell whether the call has ended."""
    return bool(wait([future], timeout=POLL_SECONDS).done)
