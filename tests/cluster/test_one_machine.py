"""Faults of a run on one machine, with servers of its own: nothing is lost, nothing is made twice."""

from __future__ import annotations

import signal
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from typing import Any

import pytest

from tests.support.faults import WORKER, FaultRow, StruckProject, flip, struck_project, truncate

CHECKPOINT_EVERY, LOG_EVERY = 20, 5
CONFIG = f"""
registry: {{name: struck, export: []}}
data: {{layout: phantoms, num_phantoms: 8, split_seed: 1}}
train:
  patch_size: [24, 24, 24]
  global_batch_size: 2
  num_steps: 160
  precision: fp32
  validate_cases: 0
  checkpoint_every_steps: {CHECKPOINT_EVERY}
  keep_checkpoints: 4
  log_every_steps: {LOG_EVERY}
  model: {{channels: [4, 8]}}
evaluate: {{tta: false}}
compute: {{num_workers: 2, retry_delay_seconds: 1}}
"""
STAGES = ("shard", "train", "evaluate", "register")
RESUMED = "resumed at step"


@pytest.fixture(scope="module")
def undisturbed() -> Iterator[dict[str, Any]]:
    """The weights of a run that nothing happens to."""
    with struck_project(CONFIG) as project:
        run = project.start("register")
        assert run.finish() == 0, run.said
        yield project.weights()


@pytest.fixture
def project() -> Iterator[StruckProject]:
    with struck_project(CONFIG) as found:
        yield found


def test_a_run_killed_at_each_boundary_and_in_mid_stage(
    project: StruckProject, undisturbed: dict[str, Any], rows: list[FaultRow]
) -> None:
    """SIGKILL after each record and in mid-stage; checkpoints damaged before it goes on.

    Seen to fail without ``find_registered`` in registration (two versions), without the check of digests in
    ``check_checkpoint`` (other weights), and without the watcher of Prefect's server (a process left).
    """
    repeated, runs = [], []
    for when, command, reached in _boundaries(project):
        run = project.start(command)
        run.wait_until(reached)
        run.strike(signal.SIGKILL)
        run.finish()
        runs.append(run)
        if RESUMED in run.said:
            repeated.append(run.last_line(RESUMED))
        if when == "training at step 60":
            newest, before = project.checkpoints()[:-3:-1]
            truncate(newest / "training.safetensors")
            flip(before / "model.safetensors")
            for snapshot in project.storage.glob("train/*/*/checkpoint_manager_snapshot.json"):
                truncate(snapshot)
        _add_kill(rows, when)
    last = project.start("register")
    assert last.finish() == 0, last.said
    assert [run.left_processes() for run in runs] == [[]] * len(runs)
    (line,) = repeated
    assert "2 checkpoints unusable" in line
    assert "model.safetensors" in line
    assert "training.safetensors is truncated" in line
    assert project.audit(undisturbed, STAGES) == "bitwise"
    rows.append(
        FaultRow(
            broken="newest checkpoint truncated, the one before flipped by a bit, Ray's snapshot truncated",
            when="between two starts",
            repeated=_repeated(line),
            weights="bitwise",
            seen=line,
        )
    )


def _boundaries(project: StruckProject) -> Iterator[tuple[str, str, Callable[[], bool]]]:
    """Yield where the run is killed, the command, and whether it has come so far."""
    yield "shards recorded", "register", lambda: bool(project.records("shard"))
    yield "training at step 60", "run", lambda: len(project.checkpoints()) >= 3
    yield "training recorded", "register", lambda: bool(project.records("train"))
    yield "evaluation recorded", "register", lambda: bool(project.records("evaluate"))
    yield "version registered, no record", "register", lambda: _num_versions(project) == 1


def _num_versions(project: StruckProject) -> int:
    with (
        suppress(sqlite3.Error),
        closing(sqlite3.connect(f"file:{project.storage}/mlflow.db?mode=ro", uri=True)) as database,
    ):
        return int(database.execute("select count(*) from model_versions").fetchone()[0])
    return 0


def _add_kill(rows: list[FaultRow], when: str) -> None:
    rows.append(
        FaultRow(
            broken="run's process: SIGKILL",
            when=when,
            weights="bitwise",
            seen="nothing; with a Prefect server: Crashed after 180 s",
        )
    )


def _repeated(line: str) -> int:
    """Read how many steps a resume repeated."""
    words = line.split()
    return int(words[words.index("repeated") - 2])


def test_a_worker_dies_and_its_run_is_frozen_while_another_is_started(
    project: StruckProject, undisturbed: dict[str, Any], rows: list[FaultRow]
) -> None:
    """A worker gets SIGKILL; then everything is stopped, the same command is started, and the first one goes on.

    Seen to fail without the lock of a stage: two trainings, two versions.
    """
    run = project.start("register")
    run.wait_until(lambda: len(project.checkpoints()) >= 2)
    run.strike(signal.SIGKILL, WORKER)
    killed = time.monotonic()
    run.wait_until(lambda: "failed; restarting" in run.said or "killed" in run.said)
    detected = time.monotonic() - killed
    run.wait_until(lambda: RESUMED in run.said)
    again = time.monotonic() - killed
    line = run.last_line(RESUMED)
    assert _repeated(line) <= CHECKPOINT_EVERY + LOG_EVERY  # the report and the checkpoint that were on their way
    run.signal_all(signal.SIGSTOP)
    second = project.start("register")
    second.wait_until(lambda: "another process is running this stage" in second.said)
    run.signal_all(signal.SIGCONT)
    assert [run.finish(), second.finish()] == [0, 0], run.said + second.said
    weights = project.audit(undisturbed, STAGES)
    assert weights == "bitwise"
    assert run.left_processes() == []
    when = "training at step 40"
    rows += [
        FaultRow(
            broken="worker: SIGKILL",
            when=when,
            detected=detected,
            again=again,
            repeated=_repeated(line),
            weights=weights,
            seen=line,
        ),
        FaultRow(
            broken="run and all that it started: SIGSTOP, a second run, SIGCONT",
            when=when,
            weights=weights,
            seen=second.last_line("another process"),
        ),
    ]
