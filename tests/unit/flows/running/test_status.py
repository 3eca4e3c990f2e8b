"""What runs, in one list: a process that died shows as stopped, a job with the progress of its stage."""

from __future__ import annotations

import fcntl
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from flows.running.status import join_progress, list_local, list_schedules, schedule_row
from flows.running.submit import JobRow
from flows.stages.status import keep_status

KEY = "a" * 64


def die(root: Path, **changes: Any) -> Path:
    """Leave what a process leaves that is killed in mid-stage; return the stage's folder."""
    stage = root / "train" / KEY
    stage.mkdir(parents=True)
    (stage / ".lock").touch()
    with pytest.raises(KeyboardInterrupt), keep_status(str(stage), "segmentation", "liver") as status:
        status.update(**changes)
        raise KeyboardInterrupt
    return stage


def test_a_stage_runs_while_its_lock_is_held(tmp_path: Path) -> None:
    stage = die(tmp_path, step=40, num_steps=100)
    (row,) = list_local(str(tmp_path))
    assert (row.state, row.message, row.what) == ("stopped", "stopped at step 40", "train of liver")
    with (stage / ".lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        (row,) = list_local(str(tmp_path))
    assert (row.state, row.message) == ("running", "")
    assert row.progress is not None
    assert row.progress.step == 40


def test_a_stage_that_is_done_is_not_listed(tmp_path: Path) -> None:
    with keep_status(str(tmp_path / "train" / KEY), "segmentation", "liver"):
        assert len(list_local(str(tmp_path))) == 1
    assert list_local(str(tmp_path)) == []


def test_a_process_that_died_once_the_stage_was_done_is_not_listed(tmp_path: Path) -> None:
    (die(tmp_path) / "record.json").touch()
    assert list_local(str(tmp_path)) == []


def test_a_job_shows_the_progress_of_its_stage(tmp_path: Path) -> None:
    die(tmp_path, step=40, num_steps=100)
    local = list_local(str(tmp_path))
    jobs = [
        JobRow("liver-1", "pipeline liver", "liver-1", "running", 9.0, ""),
        JobRow(f"train-{KEY[:12]}-2", "train", "liver-1", "running", 5.0, ""),
    ]
    pipeline, stage = join_progress(jobs, local)
    assert pipeline == jobs[0]
    assert stage.progress is not None
    assert stage.progress.step == 40
    assert join_progress(jobs[:1], local) == [jobs[0], *local]


def run(state: str, in_minutes: float) -> Any:
    start = datetime(2026, 1, 1, 2, 0, tzinfo=UTC) + timedelta(minutes=in_minutes)
    return SimpleNamespace(
        name="liver",
        state_type=SimpleNamespace(value=state),
        expected_start_time=start,
        total_run_time=timedelta(seconds=7),
    )


def test_a_schedule_shows_the_run_that_runs_else_the_next_one() -> None:
    waiting = schedule_row("liver", False, [run("SCHEDULED", 0), run("SCHEDULED", 60)])
    assert (waiting.state, waiting.what) == ("waiting", "schedule liver")
    assert waiting.message.startswith("next run 20")
    running = schedule_row("liver", False, [run("RUNNING", 0), run("SCHEDULED", 60)])
    assert (running.state, running.message, running.seconds) == ("running", "run liver", 7)
    assert schedule_row("liver", True, [run("SCHEDULED", 60)]).state == "paused"
    assert schedule_row("liver", False, []).state == "idle"


def test_without_a_prefect_server_there_are_no_schedules(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    assert list_schedules() == []
