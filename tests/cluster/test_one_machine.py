"""Faults of a run on one machine, with servers of its own: nothing is lost, nothing is made twice.

Tests with the mark ``figures`` are left to ``make test-cluster``.
"""

from __future__ import annotations

import signal
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest

from tests.support.faults import (
    WORKER,
    FaultRow,
    StruckProject,
    StruckRun,
    flip,
    struck_project,
    truncate,
)
from tests.support.machine import Machine
from tests.support.object_store import BUCKET
from tests.support.skewed_clock import SKEW_SECONDS, build_skewed_clock

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


@pytest.mark.figures
def test_a_run_killed_at_each_boundary_and_in_mid_stage(
    project: StruckProject, undisturbed: dict[str, Any], rows: list[FaultRow]
) -> None:
    """SIGKILL after each record and in mid-stage; checkpoints damaged before it goes on.

    Must fail without ``find_registered`` in registration (two versions), without the check of digests in
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

    Must fail without the lock of a stage: two trainings, two versions.
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


@pytest.mark.figures
def test_two_runs_at_the_same_second(project: StruckProject, undisturbed: dict[str, Any], rows: list[FaultRow]) -> None:
    """Must fail without the lock of a stage: two records of one key, two versions."""
    runs = [project.start("register") for _ in range(2)]
    assert [run.finish() for run in runs] == [0, 0], [run.said for run in runs]
    weights = project.audit(undisturbed, STAGES)
    assert weights == "bitwise"
    seen = next(line for run in runs if (line := run.last_line("another process")))
    rows.append(FaultRow(broken="two runs at the same second", when="start", weights=weights, seen=seen))


def _resume(project: StruckProject, run: StruckRun) -> str:
    """Start the same command again unless the run came to its end; return the line of the last resume."""
    if run.process.returncode != 0:
        run = project.start("register")
        assert run.finish() == 0, run.said
    return run.last_line(RESUMED)


@pytest.mark.figures
def test_told_to_stop_and_started_again_with_the_clock_set_back(
    project: StruckProject, undisturbed: dict[str, Any], rows: list[FaultRow]
) -> None:
    """SIGTERM, then the same command where the time of day is five minutes earlier.

    Must fail where the newest attempt, by the time in its name, was resumed alone.
    """
    library = build_skewed_clock(project.home)
    if library is None:
        pytest.skip("no C compiler, which the library that shifts the clock needs")
    run = project.start("register")
    run.wait_until(lambda: len(project.checkpoints()) >= 2)
    run.strike(signal.SIGTERM)
    told = time.monotonic()
    code = run.finish()
    detected = time.monotonic() - told
    assert run.left_processes() == []
    started = time.monotonic()
    skewed = project.start("register", LD_PRELOAD=str(library))
    skewed.wait_until(lambda: RESUMED in skewed.said)
    again = time.monotonic() - started
    line = skewed.last_line(RESUMED)
    assert _repeated(line) <= 1
    assert skewed.finish() == 0, skewed.said
    attempts = {path.parent.name for path in project.checkpoints()}
    assert project.checkpoints()[-1].parent.name == min(attempts), "the later attempt has the earlier name"
    weights = project.audit(undisturbed, STAGES)
    assert weights == "bitwise"
    seen = f"exit code {code}: {run.last_line('unetflow:')}"
    rows += [
        FaultRow(
            broken="run's process: SIGTERM",
            when="training at step 40",
            detected=detected,
            again=again,
            repeated=_repeated(line),
            weights=weights,
            seen=seen,
        ),
        FaultRow(
            broken=f"clock of all processes {SKEW_SECONDS} s back", when="second start", weights=weights, seen=line
        ),
    ]


@pytest.mark.figures
def test_the_storage_fills_up(project: StruckProject, undisturbed: dict[str, Any], rows: list[FaultRow]) -> None:
    """Must fail where half a checkpoint counts as one."""
    project.storage.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", project.storage], capture_output=True)
    if mounted.returncode:
        pytest.skip(f"no file system of its own can be mounted here: {mounted.stderr.decode()}")
    try:
        run = project.start("register")
        run.wait_until(lambda: len(project.checkpoints()) >= 2)
        filled = time.monotonic()
        with suppress(OSError), (project.storage / "filler").open("wb", buffering=0) as stream:
            while True:
                stream.write(bytes(1 << 16))
        code = run.finish()
        seconds = time.monotonic() - filled
        assert code == 1
        assert "Traceback" not in run.said
        (project.storage / "filler").unlink()
        line = _resume(project, run)
        weights = project.audit(undisturbed, STAGES)
    finally:
        subprocess.run(["umount", project.storage], check=True)
    assert weights == "bitwise"
    rows.append(
        FaultRow(
            broken="storage full",
            when="training at step 40",
            detected=seconds,
            repeated=_repeated(line) if line else None,
            weights=weights,
            seen=run.last_line("disk space") or run.last_line("unetflow:"),
        )
    )


@pytest.mark.figures
def test_the_servers_fail(
    project: StruckProject, undisturbed: dict[str, Any], rows: list[FaultRow], tmp_path: Path
) -> None:
    """The object store answers 503 for 30 s, and MLflow is killed, both in training; MLflow is missing at registration.

    Must fail where a report to MLflow that fails ends the training.
    """
    with Machine(tmp_path) as machine:
        project.root = f"s3://{BUCKET}/struck"
        patience = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2"}
        project.extra = patience | {"MLFLOW_TRACKING_URI": machine.mlflow.url}
        run = project.start("register")
        run.wait_until(lambda: project.reached() >= 40)
        when = f"training at step {project.reached()}"
        machine.mlflow.kill()
        machine.store.is_refusing = True
        time.sleep(30)
        machine.store.is_refusing = False
        code = run.finish()
        assert code != 0, "registered without MLflow"
        assert "Traceback" not in run.said
        machine.mlflow.start()
        line = _resume(project, run)
        weights = project.audit(undisturbed, STAGES)
    assert weights == "bitwise"
    assert machine.store.num_refused > 0
    refused = run.last_line(RESUMED) or line
    rows += [
        FaultRow(
            broken="object store: 503 for 30 s",
            when=when,
            repeated=_repeated(refused) if refused else 0,
            weights=weights,
            seen=refused or "nothing: requests are repeated",
        ),
        FaultRow(
            broken="MLflow killed",
            when=f"{when}, and at registration",
            repeated=0,
            weights=weights,
            seen=run.last_line("unetflow:")[:160],
        ),
    ]
