"""Announced ends: signals that are held until a checkpoint is taken, and requests that reach the workers."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from flows.training import worker_stop
from flows.training.stop import HeldSignals, StopFile, StopReason, in_thread
from flows.training.worker_stop import PassOnStops, StopOnSigterm, ask_to_stop
from tests.support.signals import DeliveredError, deliver, delivered_signals


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Signals can be caught, and this process was asked nothing."""
    monkeypatch.setattr(worker_stop, "_asked", StopReason.NONE)
    with delivered_signals():
        yield


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_is_held_until_it_is_delivered(number: signal.Signals) -> None:
    with HeldSignals() as held:
        assert held.received is None
        signal.raise_signal(number)
        assert held.received is number
        with pytest.raises(DeliveredError, match=number.name):
            held.deliver()


def test_a_second_signal_ends_at_once() -> None:
    with HeldSignals():
        signal.raise_signal(signal.SIGTERM)
        with pytest.raises(DeliveredError, match="SIGTERM"):
            signal.raise_signal(signal.SIGINT)
        assert signal.getsignal(signal.SIGINT) is deliver


def test_without_a_signal_nothing_is_delivered_and_handlers_are_as_before() -> None:
    with HeldSignals() as held:
        held.deliver()
    assert signal.getsignal(signal.SIGTERM) is deliver


def test_a_signal_that_is_ignored_stays_so() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with HeldSignals() as held:
        signal.raise_signal(signal.SIGINT)
        assert held.received is None


def test_threads_hold_nothing() -> None:
    def hold() -> object:
        with HeldSignals():
            return signal.getsignal(signal.SIGTERM)

    assert in_thread(hold, "test").result() is deliver


def test_errors_of_a_thread_come_back() -> None:
    def fail() -> None:
        raise OSError(threading.current_thread().name)

    with pytest.raises(OSError, match="of-this-name"):
        in_thread(fail, "of-this-name").result()


@dataclass
class Workers:
    """A worker group of one, which notes what it is asked."""

    asked: list[StopReason] = field(default_factory=list)

    def get_workers(self) -> list[Workers]:
        return [self]

    def execute_async(self, function: object, reason: StopReason) -> Future[None]:
        assert function is ask_to_stop
        self.asked.append(reason)
        return Future()


def test_what_the_driver_asks_reaches_each_group_of_workers_once(tmp_path: Path) -> None:
    file = StopFile(tmp_path / "stop")
    callback, first, second = PassOnStops(file.path), Workers(), Workers()
    callback.after_worker_group_start(first)
    callback.after_worker_group_poll_status(None)
    assert first.asked == []
    for reason in (StopReason.MORE_WORKERS, StopReason.RUN_STOPPED):
        file.ask(reason)
        for _ in range(2):
            callback.after_worker_group_poll_status(None)
    assert first.asked == [StopReason.MORE_WORKERS, StopReason.RUN_STOPPED]
    callback.after_worker_group_start(second)
    callback.after_worker_group_poll_status(None)
    assert second.asked == [StopReason.RUN_STOPPED]
    file.clear()
    assert file.read() is StopReason.NONE


def test_sigterm_to_a_worker_is_a_request_that_does_not_outrank_that_of_the_run() -> None:
    StopOnSigterm().after_init_train_context()
    signal.raise_signal(signal.SIGTERM)
    assert worker_stop._asked is StopReason.WORKER_SIGTERM
    ask_to_stop(StopReason.RUN_STOPPED)
    signal.raise_signal(signal.SIGTERM)
    assert worker_stop._asked is StopReason.RUN_STOPPED
