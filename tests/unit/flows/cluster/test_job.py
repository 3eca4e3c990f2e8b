"""One job: the attempt that exists or a new one, what a follower sees of it, and how it ended."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pytest
from ray.job_submission import JobStatus

from data_pipelines.errors import ConfigError, UserError
from flows.cluster import job as jobs
from flows.cluster.job import (
    PIPELINE_MEMORY,
    JobFailedError,
    JobRequest,
    Relay,
    ensure_job,
    job_info,
    require_success,
    split_job_id,
    stage_job_name,
    stop_seconds,
)


class Cluster:
    """The Jobs API as far as ``ensure_job`` uses it: a mock, since what is asked of it is which ids it is given."""

    def __init__(self, **jobs: str) -> None:
        self.jobs = jobs
        self.environments: dict[str, dict[str, Any]] = {}
        self.memory: dict[str, int] = {}

    def list_jobs(self) -> list[Any]:
        ended = ("SUCCEEDED", "FAILED", "STOPPED")
        return [
            SimpleNamespace(submission_id=name, status=SimpleNamespace(is_terminal=lambda state=state: state in ended))
            for name, state in self.jobs.items()
        ]

    def submit_job(self, submission_id: str, runtime_env: dict[str, Any], entrypoint_memory: int, **_: Any) -> None:
        if submission_id in self.jobs:
            raise RuntimeError(f"Job with submission_id {submission_id} already exists.")
        self.jobs[submission_id] = "PENDING"
        self.environments[submission_id] = runtime_env
        self.memory[submission_id] = entrypoint_memory

    def get_job_info(self, job_id: str) -> Any:
        raise RuntimeError("Request failed with status code 404: no such job")


REQUEST = JobRequest("train-abc", "true", {}, {})


@pytest.mark.parametrize(
    ("job_id", "expected"),
    [
        ("train-0123456789ab-12", ("train-0123456789ab", 12)),
        ("organ-abc", ("organ-abc", 0)),
        ("organ", ("organ", 0)),
        ("", ("", 0)),
    ],
)
def test_an_id_is_a_name_and_the_number_of_the_attempt(job_id: str, expected: tuple[str, int]) -> None:
    assert split_job_id(job_id) == expected


def test_a_stage_of_one_key_is_one_job() -> None:
    assert stage_job_name("train", "0123456789abcdef") == "train-0123456789ab"


@pytest.mark.parametrize(
    ("jobs", "expected"),
    [
        ({}, ("train-abc-1", True)),
        ({"train-abc-1": "RUNNING"}, ("train-abc-1", False)),
        ({"train-abc-1": "FAILED", "train-abc-2": "PENDING"}, ("train-abc-2", False)),
        ({"train-abc-9": "FAILED", "train-abc-10": "STOPPED"}, ("train-abc-11", True)),
        ({"train-abcd-1": "RUNNING", "other": "RUNNING"}, ("train-abc-1", True)),
    ],
)
def test_the_attempt_that_runs_or_a_new_one(jobs: dict[str, str], expected: tuple[str, bool], tmp_path: Path) -> None:
    assert ensure_job(Cluster(**jobs), REQUEST, tmp_path) == expected  # type: ignore[arg-type]


def test_the_same_job_submitted_a_moment_earlier_is_followed(tmp_path: Path) -> None:
    class Late(Cluster):
        """Lists the jobs as they were before the other process submitted."""

        def list_jobs(self) -> list[Any]:
            return []

    cluster: Any = Late(**{"train-abc-1": "RUNNING"})
    assert ensure_job(cluster, REQUEST, tmp_path) == ("train-abc-1", False)


def test_a_stopped_job_has_time_to_save_a_checkpoint(tmp_path: Path) -> None:
    """Ray kills it after three seconds otherwise."""
    cluster: Any = Cluster()
    job_id, _ = ensure_job(cluster, replace(REQUEST, grace_seconds=30.5), tmp_path)
    info: Any = SimpleNamespace(runtime_env=cluster.environments[job_id])
    assert info.runtime_env["env_vars"]["RAY_JOB_STOP_WAIT_TIME_S"] == "46"
    assert stop_seconds(info) == 46
    for other in (None, {}, {"env_vars": None}):
        info.runtime_env = other
        assert stop_seconds(info) == 15


def test_the_driver_of_a_pipeline_leaves_room_for_those_of_its_stages(tmp_path: Path) -> None:
    cluster: Any = Cluster()
    stage, _ = ensure_job(cluster, REQUEST, tmp_path)
    pipeline, _ = ensure_job(cluster, replace(REQUEST, name="m", memory=PIPELINE_MEMORY), tmp_path)
    assert (cluster.memory[stage], cluster.memory[pipeline]) == (1 << 30, 1 << 28)


def test_a_job_that_waits_for_room_is_said_to(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    states = ["PENDING"] * 3 + ["RUNNING", "SUCCEEDED"]
    client = mock.Mock(spec=["tail_job_logs"])
    client.get_job_info = lambda job_id: SimpleNamespace(status=JobStatus(states.pop(0)), message="no room")
    monkeypatch.setattr(jobs, "POLL_SECONDS", 0)
    monkeypatch.setattr(jobs, "PENDING_SECONDS", 0)
    monkeypatch.setattr(jobs, "_tail", lambda *_: None)
    caplog.set_level("INFO", "flows")
    jobs.follow(client, "m-1", lambda text: None)
    assert [record.getMessage() for record in caplog.records] == ["job m-1 has not started yet: no room"]


def test_a_job_that_does_not_exist_is_named() -> None:
    cluster: Any = Cluster()
    with pytest.raises(ConfigError, match="train-abc-7: the cluster has no such job; `unetflow status` lists"):
        job_info(cluster, "train-abc-7")


def test_relay_passes_our_lines_on_and_keeps_the_result(capsys: pytest.CaptureFixture[str]) -> None:
    relay = Relay()
    relay(
        "2026-11-21 10:53:23,489\tINFO job_manager.py:581 -- Runtime env is setting up.\nRunning entrypoint for job x"
    )
    relay("-1: python\n11:00:01  shard: run")
    relay('ning\n{"pipeline": "segmentation"}\n{not json\n')
    assert capsys.readouterr().err == "11:00:01  shard: running\n{not json\n"
    assert relay.result == {"pipeline": "segmentation"}


def test_a_users_mistake_is_told_from_a_lost_node() -> None:
    def ended(status: str, code: int | None, message: str = "exit") -> Any:
        state = SimpleNamespace(value=status)
        return SimpleNamespace(submission_id="j", status=state, message=message, driver_exit_code=code)

    require_success(ended("SUCCEEDED", 0))
    with pytest.raises(UserError):
        require_success(ended("FAILED", 2))
    with pytest.raises(JobFailedError):
        require_success(ended("FAILED", 137))
    with pytest.raises(JobFailedError):
        require_success(ended("STOPPED", None))
    with pytest.raises(JobFailedError, match="lacks the packages: start Ray there with its environment"):
        require_success(ended("FAILED", 1, "ModuleNotFoundError: No module named 'flows'"))
