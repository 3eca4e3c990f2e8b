"""Processes of ``make stack``: one that dies is named, with the end of its log."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from infra.stack.service import Service, StackError, stop, watch

SLEEP = "print('ready', flush=True); import signal; signal.pause()"


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Any]]:
    """Start services that run a line of Python."""
    started = []

    def start_one(name: str, code: str, is_ready: Callable[[], bool] = lambda: True) -> Any:
        started.append(Service(name, [sys.executable, "-c", code], is_ready))
        started[-1].start(tmp_path / f"{name}.log")
        return started[-1]

    yield start_one
    stop(started)


def test_a_service_that_ends_is_named_with_its_log(start: Callable[..., Any]) -> None:
    services = [start("one", SLEEP), start("two", "print('out of memory', flush=True); raise SystemExit(3)")]
    with pytest.raises(StackError, match=r"^two ended with exit code 3, and the stack .*/two.log:\nout of memory$"):
        watch(services)


def test_a_service_that_is_killed_is_named(start: Callable[..., Any]) -> None:
    services = [start("one", SLEEP), start("two", SLEEP)]
    services[0].process.send_signal(signal.SIGKILL)
    with pytest.raises(StackError, match=r"^one ended by signal SIGKILL, and the stack with it"):
        watch(services)


def test_a_service_that_never_comes_up_is_named(start: Callable[..., Any]) -> None:
    with pytest.raises(StackError, match=r"one did not become healthy; the end of .*:\nno port$"):
        start("one", "raise SystemExit('no port')", lambda: False)
