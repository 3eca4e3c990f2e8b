"""Faults of a run on one machine, with servers of its own: nothing is lost, nothing is made twice.

Tests with the mark ``long`` are left to ``make soak``.
"""

from __future__ import annotations

import signal
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from typing import Any

import pytest

from flows.cli.last_words import LAST_WORDS
from tests.support.faults import (
    CHECKPOINT_EVERY,
    GCS,
    LOG_EVERY,
    RAYLET,
    RESUMED,
    STAGES,
    WORKER,
    FaultRow,
    StruckProject,
    flip,
    repeated_steps,
    truncate,
)
from tests.support.skewed_clock import SKEW_SECONDS, build_skewed_clock

LOST_RAYLET, LOST_HEAD = (f"Ray's {name} on this machine was killed by SIGKILL" for name in ("raylet", "head (GCS)"))


@pytest.mark.long
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
        run.wait_until_said(LAST_WORDS)
        runs.append(run)
        if RESUMED in run.said:
            repeated.append(run.last_line(RESUMED))
        if when == "training at step 60":
            assert run.left_processes() == []  # workers train on, and may save, until they see that it is gone
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
            repeated=repeated_steps(line),
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
            seen=f"`{LAST_WORDS}`; with a Prefect server: Crashed after 180 s",
        )
    )


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
    assert repeated_steps(line) <= CHECKPOINT_EVERY + LOG_EVERY  # the report and the checkpoint that were on their way
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
            repeated=repeated_steps(line),
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


@pytest.mark.long
def test_servers_of_ray_are_killed(project: StruckProject, undisturbed: dict[str, Any], rows: list[FaultRow]) -> None:
    """The raylet of a local Ray gets SIGKILL while shards are made; then the raylet, and Ray's head, in training.

    Must fail without ``require_local_ray`` around training: it goes on, and the process ends when evaluation begins.
    """
    first = project.start("register")
    first.wait_until(lambda: first.find("ray::Map(") != [])
    first.strike(signal.SIGKILL, RAYLET)
    assert first.finish() == 1
    first.wait_until_said(LAST_WORDS, LOST_RAYLET)
    rows.append(
        FaultRow(
            broken="raylet of a local Ray: SIGKILL",
            when="shards are made",
            weights="bitwise",
            left_overs="Ray's agents, for a minute" if LAST_WORDS in first.said else "none",
            seen=f"exit code 1: {first.last_line('unetflow:')}",
        )
    )
    run = project.start("run")
    for number, (title, name, lost) in enumerate(((RAYLET, "raylet", LOST_RAYLET), (GCS, "head (GCS)", LOST_HEAD)), 1):
        reached = len(project.checkpoints())
        run.wait_until(lambda reached=reached: len(project.checkpoints()) >= reached + 2)  # type: ignore[misc]
        run.strike(signal.SIGKILL, title)
        killed = time.monotonic()
        run.wait_until(lambda lost=lost: lost in run.said)  # type: ignore[misc]
        detected = time.monotonic() - killed
        run.wait_until(lambda number=number: run.said.count(RESUMED) == number)  # type: ignore[misc]
        again = time.monotonic() - killed
        line = run.last_line(RESUMED)
        assert repeated_steps(line) <= CHECKPOINT_EVERY + LOG_EVERY
        rows.append(
            FaultRow(
                broken=f"{name} of a local Ray: SIGKILL",
                when="training",
                detected=detected,
                again=again,
                repeated=repeated_steps(line),
                weights="bitwise",
                seen=f"{run.last_line(lost)}; {line}",
            )
        )
    assert run.finish() == 0, run.said
    assert "Traceback" not in first.said + run.said
    assert first.left_processes() + run.left_processes() == []
    assert project.audit(undisturbed, STAGES) == "bitwise"


@pytest.mark.long
def test_two_runs_at_the_same_second(project: StruckProject, undisturbed: dict[str, Any], rows: list[FaultRow]) -> None:
    """Must fail without the lock of a stage: two records of one key, two versions."""
    runs = [project.start("register") for _ in range(2)]
    assert [run.finish() for run in runs] == [0, 0], [run.said for run in runs]
    weights = project.audit(undisturbed, STAGES)
    assert weights == "bitwise"
    seen = next(line for run in runs if (line := run.last_line("another process")))
    rows.append(FaultRow(broken="two runs at the same second", when="start", weights=weights, seen=seen))


@pytest.mark.long
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
    assert repeated_steps(line) <= 1
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
            repeated=repeated_steps(line),
            weights=weights,
            seen=seen,
        ),
        FaultRow(
            broken=f"clock of all processes {SKEW_SECONDS} s back", when="second start", weights=weights, seen=line
        ),
    ]
