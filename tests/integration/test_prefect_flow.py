"""Stages as Prefect tasks, on a real Prefect API: what is tried again and what is not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from data_pipelines import storage
from data_pipelines.errors import DataError, Problem
from flows.config.specs import ComputeSpec
from flows.pipelines.segmentation.config import SegmentationConfig
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


def test_a_passing_failure_is_tried_again(tmp_path: Path) -> None:
    def compute(number: int) -> None:
        if number == 1:
            raise OSError("the network blinked")

    result, tries = run_as_flow(compute, tmp_path)
    assert isinstance(result, Done)
    assert tries == 2


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
