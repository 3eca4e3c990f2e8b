"""Stages as Prefect tasks, on a real Prefect API: what is tried again and what is not."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from data_pipelines import storage
from data_pipelines.errors import DataError, Problem
from flows.config.run_id import RUN_ID_VARIABLE, current_run_id
from flows.config.specs import ComputeSpec
from flows.pipelines.segmentation.config import SegmentationConfig
from flows.running import prefect_settings
from flows.running.execution import RunSummary
from flows.stages.attempt import Attempt
from flows.stages.stage import Done, Stage
from tests.support.records import CountFigures

pytestmark = pytest.mark.usefixtures("prefect_url")


def run_as_flow(compute: Callable[[int], None], root: Path) -> tuple[Done | BaseException, int]:
    """Run one stage as the pipeline does; ``compute`` gets the number of the try, from 1."""
    from prefect import flow

    from flows.running import prefect_flow

    tries: list[str] = []

    def work(attempt: Attempt) -> CountFigures:
        tries.append(attempt.name)
        compute(len(tries))
        storage.write_bytes(attempt.uri("out"), b"x")
        attempt.add("out", attempt.uri("out"))
        return CountFigures(num_runs=len(tries))

    config = SegmentationConfig(storage=str(root), compute=ComputeSpec(retries=2, retry_delay_seconds=0))

    @flow(name="one-stage")
    def one_stage() -> Done:
        return prefect_flow.run_as_task(Stage("count", {}, (), work, CountFigures), config)

    try:
        return one_stage(), len(tries)
    except Exception as error:
        return error, len(tries)


def test_a_passing_failure_is_tried_again_and_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def compute(number: int) -> None:
        if number == 1:
            raise OSError("the network blinked")

    # Prefect keeps its own loggers' messages from the root once another flow has run in this process.
    logger = logging.getLogger("flows.running.prefect_flow")
    logger.addHandler(caplog.handler)
    try:
        result, tries = run_as_flow(compute, tmp_path)
    finally:
        logger.removeHandler(caplog.handler)
    assert isinstance(result, Done)
    assert tries == 2
    assert "count failed, retrying: the network blinked" in caplog.text


def test_a_mistake_in_the_data_is_not_tried_again(tmp_path: Path) -> None:
    def compute(number: int) -> None:
        raise DataError([Problem("constant-volume", "a.nii.gz", "all voxels are 0", "leave it out")])

    result, tries = run_as_flow(compute, tmp_path)
    assert isinstance(result, DataError)
    assert result.problems[0].path == "a.nii.gz"
    assert tries == 1


def test_retries_end(tmp_path: Path) -> None:
    def compute(number: int) -> None:
        raise OSError("gone for good")

    result, tries = run_as_flow(compute, tmp_path)
    assert isinstance(result, OSError)
    assert tries == 3


def test_a_run_is_tagged_and_makes_the_automation_once(monkeypatch: pytest.MonkeyPatch, prefect_url: str) -> None:
    from prefect.automations import Automation
    from prefect.client.orchestration import get_client

    from flows.running import automation, prefect_flow

    monkeypatch.setenv("PREFECT_API_URL", prefect_url)
    monkeypatch.setattr(prefect_flow, "require_servers", lambda: None)
    monkeypatch.setattr(prefect_flow, "run_pipeline", lambda config, run: summary_of(config))
    monkeypatch.delenv(RUN_ID_VARIABLE, raising=False)
    with get_client(sync_client=True) as client:  # other tests may have run on this server
        for made in client.read_automations_by_name(name=automation.NAME):
            client.delete_automation(made.id)
    earlier = automation.build_automation()
    earlier.trigger.within = timedelta(seconds=60)
    earlier.create()
    config = SegmentationConfig()
    ids = [prefect_flow.run_flow(config).run_id for _ in range(2)]
    with get_client(sync_client=True) as client:
        (found,) = client.read_automations_by_name(name=automation.NAME)
        runs = [run for run in client.read_flow_runs() if run.name == config.registry.name]
    assert found.trigger.within == timedelta(seconds=prefect_settings.UNRESPONSIVE_SECONDS)
    assert sorted(sorted(run.tags) for run in runs) == sorted([f"run:{run_id}", "unetflow"] for run_id in ids)
    Automation.read(name=automation.NAME).delete()


def test_status_lists_the_schedules(monkeypatch: pytest.MonkeyPatch, prefect_url: str) -> None:
    from prefect.client.orchestration import get_client
    from prefect.deployments.runner import EntrypointType

    from flows.running.automation import TAG
    from flows.running.prefect_flow import FLOWS
    from flows.running.status import list_schedules

    monkeypatch.setenv("PREFECT_API_URL", prefect_url)
    ids: list[Any] = []
    for name, tags in (("liver", [TAG]), ("of another project", [])):
        deployment: Any = FLOWS["segmentation"].to_deployment(
            name=name, interval=3600, tags=tags, entrypoint_type=EntrypointType.MODULE_PATH
        )
        ids.append(deployment.apply())
    assert [(row.what, row.place) for row in list_schedules()] == [("schedule liver", "schedule")]
    with get_client(sync_client=True) as client:
        for deployment_id in ids:
            client.delete_deployment(deployment_id)
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")
    assert list_schedules() == [], "a server that does not answer hides nothing else"


def summary_of(config: SegmentationConfig) -> RunSummary:
    return RunSummary(pipeline=config.pipeline, run_id=current_run_id(), seconds=0.0, stages=())


def test_prefect_was_imported_with_this_projects_settings() -> None:
    """Its own patience with a temporary server, 20 s, is not enough on a slow machine."""
    from prefect.settings import PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS

    assert PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS.value() == 180
