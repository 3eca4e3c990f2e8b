"""Processes of ``make stack``: one that dies is named, with the end of its log."""

from __future__ import annotations

import importlib.util
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.support.infra import INFRA

SLEEP = "print('ready', flush=True); import signal; signal.pause()"


@pytest.fixture(scope="module")
def stack() -> ModuleType:
    """Import infra/stack.py, which is a script."""
    spec = importlib.util.spec_from_file_location("stack", INFRA / "stack.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["stack"] = module  # its dataclasses look for their annotations there
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def start(stack: ModuleType, tmp_path: Path) -> Iterator[Callable[..., Any]]:
    """Start services that run a line of Python."""
    started = []

    def start_one(name: str, code: str, is_ready: Callable[[], bool] = lambda: True) -> Any:
        started.append(stack.Service(name, [sys.executable, "-c", code], is_ready))
        started[-1].start(tmp_path / f"{name}.log")
        return started[-1]

    yield start_one
    stack.stop(started)


def test_a_service_that_ends_is_named_with_its_log(stack: ModuleType, start: Callable[..., Any]) -> None:
    services = [start("one", SLEEP), start("two", "print('out of memory', flush=True); raise SystemExit(3)")]
    with pytest.raises(
        stack.StackError, match=r"^two ended with exit code 3, and the stack .*/two.log:\nout of memory$"
    ):
        stack.watch(services)


def test_a_service_that_is_killed_is_named(stack: ModuleType, start: Callable[..., Any]) -> None:
    services = [start("one", SLEEP), start("two", SLEEP)]
    services[0].process.send_signal(signal.SIGKILL)
    with pytest.raises(stack.StackError, match=r"^one ended by signal SIGKILL, and the stack with it"):
        stack.watch(services)


def test_a_service_that_never_comes_up_is_named(stack: ModuleType, start: Callable[..., Any]) -> None:
    with pytest.raises(stack.StackError, match=r"one did not become healthy; the end of .*:\nno port$"):
        start("one", "raise SystemExit('no port')", lambda: False)
