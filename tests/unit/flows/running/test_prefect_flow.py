"""Flows as Prefect sees them: loaded by name, their form explains every field, mistakes are not retried."""

from __future__ import annotations

import json
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from data_pipelines.errors import ConfigError, DataError, TrainingDiverged
from flows.cluster.job import JobFailedError
from flows.pipelines.catalog import PIPELINES


@pytest.fixture(scope="module")
def prefect_flow() -> ModuleType:
    """The module, imported in the tests' home: it makes Prefect's folder there."""
    from flows.running import prefect_flow

    return prefect_flow


@pytest.mark.parametrize("name", PIPELINES)
def test_a_flow_is_loaded_by_module_and_attribute(prefect_flow: ModuleType, name: str) -> None:
    from prefect.flows import load_flow_from_entrypoint

    found: Any = load_flow_from_entrypoint(f"flows.running.prefect_flow.{name}_flow", use_placeholder_flow=False)
    assert found is prefect_flow.FLOWS[name]
    assert found.name == name


def test_the_form_of_a_flow_explains_every_field(prefect_flow: ModuleType) -> None:
    from prefect.utilities.callables import parameter_schema

    schema = parameter_schema(prefect_flow.FLOWS["segmentation"])
    assert schema.required == ["config"]
    definitions = schema.definitions
    assert definitions["DataSpec"]["properties"]["num_folds"]["minimum"] == 2, "the form knows limits"
    text = json.dumps(schema.model_dump())
    for explanation in (
        "Configuration of the segmentation pipeline.",
        "Fold of the splits that is held out for validation",
        "Target voxel size in mm, one number per axis",
        "with the URL that takes a POST of",
    ):
        assert explanation in text


@pytest.mark.parametrize(
    ("error", "retried"),
    [
        (ConfigError("a wrong field"), False),
        (DataError([]), False),
        (TrainingDiverged("the loss is NaN"), False),
        (OSError("the disk is full"), True),
        (JobFailedError("the node was lost"), True),
        (MemoryError(), True),
        (None, False),
    ],
)
def test_only_what_may_pass_is_retried(
    prefect_flow: ModuleType, error: Exception | None, retried: bool, caplog: pytest.LogCaptureFixture
) -> None:
    class State:
        """Stands for the state of a task run that ended."""

        def result(self) -> None:
            if error is not None:
                raise error

    task = SimpleNamespace(name="train")
    assert prefect_flow.is_worth_retrying(task, None, State()) is retried
    assert ("train failed, retrying" in caplog.text) == retried
