"""Run the trials of Ray Tune without giving it the process's signals."""

from __future__ import annotations

from contextvars import copy_context
from functools import partial
from typing import Any

from flows.training.stop import in_thread, is_ready


def fit_trials(tuner: Any) -> Any:
    """Run the trials of a ``ray.tune.Tuner`` and return their results.

    In the main thread Ray Tune takes SIGINT and SIGUSR1 for itself: it would end the trials as if they were done, and
    keep the signals for the rest of the process.
    """
    future = in_thread(partial(copy_context().run, tuner.fit), "ray-tune")
    while not is_ready(future):
        pass
    return future.result()
