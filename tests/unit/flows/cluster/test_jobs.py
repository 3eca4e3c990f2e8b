"""What travels with a job, what is refused before anything is sent, and what a follower hears."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from data_pipelines.errors import UserError
from flows.pipelines.segmentation.config import SegmentationConfig
from flows.pipelines.catalog import load_config
from flows.cluster.jobs_api import connect, is_loopback, jobs_address
from flows.cluster.package import CONFIG, digest_of_folder, forwarded_variables, packed
from flows.cluster.job import JobFailedError, Relay, ensure_job, require_success
from flows.cluster.job import Request as JobRequest
from flows.config.specs import ComputeSpec


def test_packed_is_code_and_config_without_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "huge.nii.gz").write_bytes(b"x" * 1000)
    monkeypatch.chdir(tmp_path)
    config = SegmentationConfig.model_validate({"data": {"root": "raw"}, "storage": "runs"})
    with packed(config) as folder:
        first = digest_of_folder(folder)
        assert {path.suffix for path in folder.rglob("*") if path.is_file()} <= {".py", ".yaml", ".j2", ".txt"}
        assert (folder / "flows" / "cli" / "__main__.py").is_file()
        there = load_config(folder / CONFIG)
    assert there.data.root == str(tmp_path / "raw")
    assert there.storage == str(tmp_path / "runs")
    with packed(config) as folder:
        assert digest_of_folder(folder) == first


@pytest.mark.parametrize(
    ("address", "message"),
    [("192.0.2.1:6379", "http://HOST:8265"), ("http://192.0.2.1:8265", "set RAY_AUTH_TOKEN")],
)
def test_refused_before_anything_is_sent(address: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_AUTH_TOKEN", raising=False)
    with pytest.raises(UserError, match=message):
        connect(address)


def test_nothing_listens() -> None:
    with pytest.raises(UserError, match="no Ray dashboard answers"):
        connect("http://127.0.0.1:9")


def test_where_stages_run(monkeypatch: pytest.MonkeyPatch) -> None:
    assert jobs_address() is None
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    assert jobs_address() is None
    monkeypatch.setenv("RAY_ADDRESS", "https://ray.example.org")
    assert jobs_address() == "https://ray.example.org"
    monkeypatch.setenv("UNETFLOW_JOBS_ADDRESS", "auto")
    assert jobs_address() == "auto"


def test_loopback() -> None:
    assert is_loopback("http://127.0.0.1:8265")
    assert is_loopback("http://[::1]:8265")
    assert is_loopback("http://localhost:8265")
    assert not is_loopback("http://10.0.0.1:8265")
    assert not is_loopback("http://127.0.0.1.example.org")


def test_only_what_is_named_travels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://x")
    monkeypatch.setenv("SOMETHING_SECRET", "y")
    assert forwarded_variables()["MLFLOW_TRACKING_URI"] == "http://x"
    assert "SOMETHING_SECRET" not in forwarded_variables()


class Cluster:
    """The Jobs API as far as ``ensure_job`` uses it: a mock, since what is asked of it is which ids it is given."""

    def __init__(self, **jobs: str) -> None:
        self.jobs = jobs

    def list_jobs(self) -> list[Any]:
        ended = ("SUCCEEDED", "FAILED", "STOPPED")
        return [
            SimpleNamespace(submission_id=name, status=SimpleNamespace(is_terminal=lambda state=state: state in ended))
            for name, state in self.jobs.items()
        ]

    def submit_job(self, submission_id: str, **_: Any) -> None:
        if submission_id in self.jobs:
            raise RuntimeError(f"Job with submission_id {submission_id} already exists.")
        self.jobs[submission_id] = "PENDING"


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
    request = JobRequest("train-abc", "true", {}, {})
    assert ensure_job(Cluster(**jobs), request, tmp_path) == expected  # type: ignore[arg-type]


def test_relay_hands_on_ours_and_keeps_the_result(capsys: pytest.CaptureFixture[str]) -> None:
    relay = Relay()
    relay(
        "2026-11-21 10:53:23,489\tINFO job_manager.py:581 -- Runtime env is setting up.\nRunning entrypoint for job x"
    )
    relay("-1: python\n11:00:01  shard: run")
    relay('ning\n{"pipeline": "segmentation"}\n')
    assert capsys.readouterr().err == "11:00:01  shard: running\n"
    assert relay.result == {"pipeline": "segmentation"}


def test_a_users_mistake_is_told_from_a_lost_node() -> None:
    def ended(status: str, code: int | None) -> Any:
        state = SimpleNamespace(value=status)
        return SimpleNamespace(submission_id="j", status=state, message="exit", driver_exit_code=code)

    require_success(ended("SUCCEEDED", 0))
    with pytest.raises(UserError):
        require_success(ended("FAILED", 2))
    with pytest.raises(JobFailedError):
        require_success(ended("FAILED", 137))
    with pytest.raises(JobFailedError):
        require_success(ended("STOPPED", None))


def test_workers_as_a_number_or_a_range() -> None:
    assert (ComputeSpec(num_workers=3).least_workers, ComputeSpec(num_workers=3).most_workers) == (3, 3)
    elastic = ComputeSpec.model_validate(yaml.safe_load("num_workers: [1, 4]"))
    assert (elastic.least_workers, elastic.most_workers, elastic.num_cpus) == (1, 4, 4)
    assert elastic.least_resources == {"CPU": 1, "GPU": 0}
    with pytest.raises(ValueError, match="must not be larger"):
        ComputeSpec(num_workers=(4, 1))
    with pytest.raises(ValueError):
        ComputeSpec(num_workers=0)
