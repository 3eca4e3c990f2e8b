"""Kinds of faults: each strikes a pipeline, or says that there is nothing to strike yet."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

import psutil

from tests.support.faults import GCS, RAYLET, WORKER, flip, truncate

if TYPE_CHECKING:
    from tests.soak.pipeline import SoakedPipeline

SHORT_STOPS = (0.5, 2.0, 8.0, 20.0)
"""Seconds for which processes are stopped, and servers are down; the longest is twice ``LOST_HEAD_SECONDS``."""
LONG_STOP = 300.0
"""Longer than any server's patience with a silent client; once in a soak."""


@dataclass(frozen=True, slots=True)
class Fault:
    """A kind of fault."""

    name: str
    strike: Callable[[SoakedPipeline, Random], bool]
    """Returns False where there is nothing to strike now."""


def _signal(number: signal.Signals, title: str, pipeline: SoakedPipeline, random: Random) -> bool:
    runs = [run for run in pipeline.running() if not title or run.find(title)]
    if not runs:
        return False
    with suppress(psutil.NoSuchProcess, IndexError):  # it ended in this moment
        random.choice(runs).strike(number, title)
        return True
    return False


def _stop(title: str, pipeline: SoakedPipeline, random: Random) -> bool:
    runs = [run for run in pipeline.running() if run.find(title)] if title else pipeline.running()
    if not runs:
        return False
    run = random.choice(runs)
    run.remember()
    targets = run.find(title)[:1] if title else [psutil.Process(run.process.pid), *run.family]
    freeze(targets, random.choice(SHORT_STOPS))
    return True


def freeze(processes: list[psutil.Process], seconds: float) -> None:
    """Stop processes for a time."""
    for number in (signal.SIGSTOP, signal.SIGCONT):
        for process in processes:
            with suppress(psutil.Error):
                process.send_signal(number)
        if number is signal.SIGSTOP:
            time.sleep(seconds)


def _damage(name: str, change: Callable[[Path], None], pipeline: SoakedPipeline, random: Random) -> bool:
    found = pipeline.project.checkpoints()
    if not found or pipeline.project.records("train"):  # what a record names is repaired by verification, not by resume
        return False
    with suppress(FileNotFoundError):
        change(found[-1] / name)
        return True
    return False


def _refuse(pipeline: SoakedPipeline, random: Random) -> bool:
    if not pipeline.uses_servers or not pipeline.running():
        return False
    store = pipeline.machine.store
    store.is_refusing = True
    time.sleep(random.choice(SHORT_STOPS))
    store.is_refusing = False
    return True


def _lose_mlflow(pipeline: SoakedPipeline, random: Random) -> bool:
    if not pipeline.uses_servers or not pipeline.running():
        return False
    pipeline.machine.mlflow.kill()
    time.sleep(random.choice(SHORT_STOPS))
    pipeline.machine.mlflow.start()
    return True


def _run_twice(pipeline: SoakedPipeline, random: Random) -> bool:
    if len(pipeline.running()) != 1:
        return False
    pipeline.start()
    return True


FAULTS = (
    *(
        Fault(f"{number.name} {target}", partial(_signal, number, title))
        for number in (signal.SIGKILL, signal.SIGTERM)
        for target, title in (("run", ""), ("worker", WORKER), ("raylet", RAYLET), ("GCS", GCS))
    ),
    *(
        Fault(f"SIGSTOP {target}", partial(_stop, title))
        for target, title in (("run and all", ""), ("worker", WORKER), ("raylet", RAYLET), ("GCS", GCS))
    ),
    Fault("checkpoint truncated", partial(_damage, "model.safetensors", truncate)),
    Fault("checkpoint flipped", partial(_damage, "training.safetensors", flip)),
    Fault("store answers 503", _refuse),
    Fault("MLflow killed", _lose_mlflow),
    Fault("second run", _run_twice),
)
