"""A stage runs here without a cluster; with one, a cache hit asks nobody."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from flows.config.pipeline import PipelineConfig
from flows.pipelines.catalog import PIPELINES
from flows.running import placement
from flows.running.placement import run_as_job, run_or_submit
from flows.stages.pipeline import Pipeline
from tests.support.records import CountingStages


def test_without_a_cluster_a_stage_runs_here(tmp_path: Path) -> None:
    stages = CountingStages()
    config = PipelineConfig(pipeline="p", storage=str(tmp_path))
    assert not run_or_submit(stages.plan(), config).cached
    assert run_or_submit(stages.plan(), config).cached
    assert len(stages.attempts) == 1


def test_a_cache_hit_submits_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    stages = CountingStages()
    config = PipelineConfig(pipeline="p", storage=str(tmp_path))
    first = run_or_submit(stages.plan(), config)
    with caplog.at_level("INFO"):
        again = run_as_job(stages.plan(), config, "http://127.0.0.1:9", owner="")
    assert again.cached
    assert again.record == first.record
    assert "count: cache hit" in caplog.text


class TerminationSignal(BaseException):
    """Prefect's, of a flow run that is cancelled."""


@pytest.mark.parametrize(
    ("error", "stopped", "said"),
    [
        (asyncio.CancelledError(), ["job-1"], "did not end within compute.timeout_seconds, stopping it"),
        (TerminationSignal(), [], "job job-1 continues on the cluster"),
        (KeyboardInterrupt(), [], "job job-1 continues on the cluster"),
        (ConnectionError(), [], ""),
    ],
)
def test_who_stops_following_a_job_is_told_what_becomes_of_it(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    error: BaseException,
    stopped: list[str],
    said: str,
) -> None:
    class Client:
        def stop_job(self, job_id: str) -> None:
            ended.append(job_id)

    def follow(*_: object) -> None:
        raise error

    ended: list[str] = []
    monkeypatch.setitem(PIPELINES, "p", Pipeline("p", PipelineConfig, ()))
    monkeypatch.setattr(placement, "connect", lambda address: Client())
    monkeypatch.setattr(placement, "ensure_job", lambda *_: ("job-1", True))
    monkeypatch.setattr(placement, "follow", follow)
    config = PipelineConfig(pipeline="p", storage=str(tmp_path))
    with pytest.raises(type(error)):
        run_as_job(CountingStages().plan(), config, "http://127.0.0.1:9", owner="")
    assert ended == stopped
    assert said in caplog.text
    assert said or "continues" not in caplog.text
