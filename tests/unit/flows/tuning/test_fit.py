"""Trials run beside the main thread, which keeps its signals."""

from __future__ import annotations

import threading
from contextvars import ContextVar

import pytest

from flows.tuning.fit import fit_trials

RUN: ContextVar[str] = ContextVar("RUN", default="")


class Tuner:
    """Tells which thread it runs in, and whose context."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error

    def fit(self) -> tuple[bool, str]:
        if self.error:
            raise self.error
        return threading.current_thread() is threading.main_thread(), RUN.get()


def test_trials_run_in_a_thread_of_the_same_context() -> None:
    token = RUN.set("run-7")
    try:
        assert fit_trials(Tuner()) == (False, "run-7")
    finally:
        RUN.reset(token)


def test_an_error_of_ray_tune_is_raised() -> None:
    with pytest.raises(ValueError, match="no trials"):
        fit_trials(Tuner(ValueError("no trials")))
