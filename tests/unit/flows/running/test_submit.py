"""Pipelines and their stages as jobs: how they are listed, and what is refused before anything is sent."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from data_pipelines.errors import ConfigError
from flows.cluster.job import OWNER_TAG, PIPELINE_TAG, PREDICTION_TAG, STAGE_TAG
from flows.config.pipeline import PipelineConfig
from flows.running import submit
from flows.running.submit import _check_storage, cancel_pipeline, list_jobs, submit_pipeline


def job(job_id: str, start: int, state: str = "RUNNING", **metadata: str) -> Any:
    status = SimpleNamespace(value=state)
    return SimpleNamespace(
        submission_id=job_id, metadata=metadata, status=status, start_time=start, end_time=start + 5000, message="a\nb"
    )


class Cluster:
    """Lists jobs in no order."""

    def list_jobs(self) -> list[Any]:
        return [
            job("train-1", 3000, **{STAGE_TAG: "train", OWNER_TAG: "old-1"}),
            job("new-1", 9000, **{PIPELINE_TAG: "new"}),
            job("shard-1", 2000, "SUCCEEDED", **{STAGE_TAG: "shard", OWNER_TAG: "old-1"}),
            job("predict-1", 500, **{PREDICTION_TAG: "models:/m/1"}),
            job("old-1", 1000, **{PIPELINE_TAG: "old"}),
        ]

    def get_job_info(self, job_id: str) -> Any:
        raise RuntimeError("404")


def test_pipelines_are_listed_newest_first_with_their_stages_in_order() -> None:
    client: Any = Cluster()
    rows = list_jobs(client)
    assert [(row.what, row.job_id) for row in rows] == [
        ("pipeline new", "new-1"),
        ("pipeline old", "old-1"),
        ("shard", "shard-1"),
        ("train", "train-1"),
    ]
    assert rows[2].state == "succeeded"
    assert rows[2].seconds == 5.0
    assert rows[2].owner == "old-1"
    assert rows[0].owner == "new-1"
    assert rows[0].message == "a"
    assert [row.job_id for row in list_jobs(client, "old-1")] == ["old-1", "shard-1", "train-1"]
    with pytest.raises(ConfigError, match="none-1: the cluster has no such job"):
        list_jobs(client, "none-1")


class Stopping(Cluster):
    """Ends the jobs that it is told to stop."""

    def __init__(self, *jobs: Any) -> None:
        self.jobs, self.stopped = {each.submission_id: each for each in jobs}, list[str]()

    def list_jobs(self) -> list[Any]:
        return list(self.jobs.values())

    def get_job_info(self, job_id: str) -> Any:
        return SimpleNamespace(runtime_env={})

    def get_job_status(self, job_id: str) -> Any:
        is_over = job_id in self.stopped or self.jobs[job_id].status.value == "FAILED"
        return SimpleNamespace(is_terminal=lambda: is_over)

    def stop_job(self, job_id: str) -> None:
        self.stopped.append(job_id)


def test_a_stage_that_an_attempt_which_died_had_started_is_cancelled_with_the_next() -> None:
    client: Any = Stopping(
        job("m-0123-1", 1, "FAILED", **{PIPELINE_TAG: "m"}),
        job("m-0123-2", 3, **{PIPELINE_TAG: "m"}),
        job("train-1", 2, **{STAGE_TAG: "train", OWNER_TAG: "m-0123-1"}),
        job("train-2", 2, **{STAGE_TAG: "train", OWNER_TAG: "other-1"}),
        job("train-3", 4, **{STAGE_TAG: "train", OWNER_TAG: "m-0123-3"}),
    )
    assert cancel_pipeline(client, "m-0123-2") == ["m-0123-2", "train-1"]


def test_a_stage_of_no_pipeline_job_is_listed_while_it_runs() -> None:
    running, ended = job("train-1", 2, **{STAGE_TAG: "train", OWNER_TAG: ""}), job("shard-1", 1, **{STAGE_TAG: "shard"})
    running.status.is_terminal, ended.status.is_terminal = (lambda: False), (lambda: True)
    client: Any = Stopping(running, ended)
    assert [(row.job_id, row.owner) for row in list_jobs(client)] == [("train-1", "train-1")]


def test_a_folder_of_this_machine_is_refused_for_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(submit, "connect", lambda address: Cluster())
    monkeypatch.delenv("UNETFLOW_STORAGE", raising=False)
    with pytest.raises(ConfigError, match=r"is another machine and .* is a folder of this one: set `storage:`"):
        submit_pipeline(PipelineConfig(pipeline="segmentation"), "https://ray.example.org")


def test_a_shared_folder_may_be_named_by_the_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNETFLOW_STORAGE", str(tmp_path))
    _check_storage(PipelineConfig(pipeline="segmentation"), "https://ray.example.org")
