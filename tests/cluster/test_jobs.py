"""Faults of a pipeline on a cluster: the drivers of its jobs are killed, the head is killed and started again."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.support.faults import RESUMED, STAGES, FaultRow, StruckProject, StruckRun, repeated_steps
from tests.support.serving import BIN, RayHead, wait_for


@pytest.mark.long
def test_drivers_and_head_are_killed(
    project: StruckProject, undisturbed: dict[str, Any], rows: list[FaultRow], tmp_path: Path
) -> None:
    """The head of the cluster in training, then the driver of the training, then that of the pipeline.

    Must fail where a job that failed is followed once more instead of a new one submitted.
    """
    with RayHead(tmp_path / "ray.log", project.environment) as head:
        project.extra = head.variables
        first = _submit(project, 2)
        head.kill()
        head.start()
        first.wait_until_said("the cluster has no such job")
        assert first.finish() == 2
        forgotten = next(line for line in _status(project).splitlines() if "since its head was started at" in line)

        second = project.start("submit", "--follow")
        second.wait_until_said(RESUMED)
        second.wait_until(lambda: len(_steps(project)) >= 4)
        killed = time.monotonic()
        _driver(head, " stage train ").kill()
        second.wait_until(lambda: second.said.count(RESUMED) == 2)
        again = time.monotonic() - killed
        line = second.last_line(RESUMED)
        _driver(head, " run ").kill()
        detected = second.wait_until_said("unetflow: job struck-")
        assert second.finish() == 1, second.said
        assert "failed" in _status(project)

        third = project.start("submit", "--follow")
        assert third.finish() == 0, third.said
        assert "exists already, following it" in third.said or "cache hit" in third.said
        weights = project.audit(undisturbed, STAGES)
    assert weights == "bitwise"
    head_line, line_of_driver = second.said.splitlines(), second.last_line("unetflow: job")
    first_resume = next(each for each in head_line if RESUMED in each)
    rows += [
        FaultRow(
            broken="head of a cluster killed with all its jobs, and started again",
            when="training at step 40",
            repeated=repeated_steps(first_resume),
            weights=weights,
            seen=f"{forgotten}; submitted again: {first_resume.split('  ', 1)[-1]}",
        ),
        FaultRow(
            broken="driver of a training's job: SIGKILL",
            when="training at step 80",
            again=again,
            repeated=repeated_steps(line),
            weights=weights,
            seen=f"the pipeline's job submits it again: {line}",
        ),
        FaultRow(
            broken="driver of a pipeline's job: SIGKILL",
            when="training",
            detected=detected,
            repeated=0,
            weights=weights,
            seen=f"{line_of_driver}; the training's job goes on, and the same `submit` follows it",
        ),
    ]


def _submit(project: StruckProject, num_checkpoints: int) -> StruckRun:
    """Submit the pipeline, and wait for its checkpoints."""
    run = project.start("submit", "--follow")
    run.wait_until(lambda: len(project.checkpoints()) >= num_checkpoints)
    return run


def _steps(project: StruckProject) -> set[str]:
    return {path.name for path in project.checkpoints()}


def _driver(head: RayHead, words: str) -> psutil.Process:
    """Find the Python process of a job's driver; its shell and its supervisor have the words, too."""
    found = [each for each in head.processes(words) if "python" in each.name()]
    wait_for(lambda: bool(found), lambda: f"no driver of {words}", 1)
    return found[-1]


def _status(project: StruckProject) -> str:
    """Return what ``unetflow status`` prints."""
    command = [str(BIN / "unetflow"), "status"]
    done = subprocess.run(command, env=project.environment, cwd=project.home, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout
