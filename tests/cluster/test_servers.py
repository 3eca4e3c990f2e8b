"""Faults of the servers that a run on one machine uses: an object store, MLflow, Prefect."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.faults import RESUMED, STAGES, FaultRow, StruckProject, repeated_steps
from tests.support.machine import Machine, PrefectServer
from tests.support.object_store import BUCKET


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    with Machine(tmp_path_factory.mktemp("servers")) as started:
        yield started


@pytest.mark.long
def test_store_and_mlflow_fail(
    machine: Machine, project: StruckProject, undisturbed: dict[str, Any], rows: list[FaultRow]
) -> None:
    """The object store answers 503 for 30 s, and MLflow is killed, both in training; MLflow is missing at registration.

    Must fail where a report to MLflow that fails ends the training.
    """
    _move_to_store(project, machine)
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
    line = project.resume(run)
    weights = project.audit(undisturbed, STAGES)
    assert weights == "bitwise"
    assert machine.store.num_refused > 0
    refused = run.last_line(RESUMED) or line
    rows += [
        FaultRow(
            broken="object store: 503 for 30 s",
            when=when,
            repeated=repeated_steps(refused) if refused else 0,
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


@pytest.mark.long
def test_two_runs_at_the_same_second_on_an_object_store(
    machine: Machine, project: StruckProject, undisturbed: dict[str, Any], rows: list[FaultRow]
) -> None:
    """Must fail without the lease of a stage: two records of one key, two versions."""
    _move_to_store(project, machine)
    runs = [project.start("register") for _ in range(2)]
    assert [run.finish() for run in runs] == [0, 0], [run.said for run in runs]
    weights = project.audit(undisturbed, STAGES)
    assert weights == "bitwise"
    assert sum("train: running" in run.said for run in runs) == 1
    seen = next(line for run in runs if (line := run.last_line("another process")))
    rows.append(FaultRow(broken="two runs at the same second on S3", when="start", weights=weights, seen=seen))


@pytest.mark.long
def test_prefect_is_restarted(
    project: StruckProject, undisturbed: dict[str, Any], rows: list[FaultRow], tmp_path: Path
) -> None:
    """Its server gets SIGKILL in training, and is started again on the same database after the evaluation has ended.

    Must fail where no request is repeated (PREFECT_CLIENT_MAX_RETRIES=0), a stage fails without its artifacts, and none
    is tried again: each of the three alone is enough to go on.
    """
    server = PrefectServer(tmp_path)
    server.start()
    try:
        project.extra = {"PREFECT_API_URL": server.api}
        run = project.start("run")
        run.wait_until(lambda: len(project.checkpoints()) >= 2)
        server.kill()
        run.wait_until(lambda: bool(project.records("evaluate")))
        time.sleep(3)
        server.start()
        assert run.finish() == 0, run.said
    finally:
        server.kill()
    weights = project.audit(undisturbed, STAGES)
    assert weights == "bitwise"
    assert "Traceback" not in run.said
    rows.append(
        FaultRow(
            broken="Prefect's server killed, started again when evaluation had ended",
            when="training at step 40",
            repeated=0,
            weights=weights,
            seen="nothing: the run goes on",
        )
    )


def _move_to_store(project: StruckProject, machine: Machine) -> None:
    """Let the project's runs use the object store, and the MLflow server with little patience.

    Tests share the server: each registers a model of its own.
    """
    text = project.config.read_text()
    project.config.write_text(text.replace("name: struck", f"name: {project.home.name}"))
    project.root = f"s3://{BUCKET}/{project.home.name}"
    project.extra = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2", "MLFLOW_TRACKING_URI": machine.mlflow.url}
