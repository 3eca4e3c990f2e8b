"""The key of a training: everything that changes the weights, and nothing that only watches."""

from __future__ import annotations

from typing import Any

import pytest

from flows.pipelines.segmentation.config import SegmentationConfig
from flows.stages.attempt import Attempt
from flows.training.stage import training_stage
from flows.training.task import TrainingTask
from tests.support.records import CountFigures, finished


def key(inputs: str = "index", compute: dict[str, Any] | None = None, **train: Any) -> str:
    def build_task(attempt: Attempt) -> TrainingTask:
        raise AssertionError("planning trains nothing")

    config = SegmentationConfig.model_validate({"train": train, "compute": compute or {}})
    record = finished("shard", CountFigures(), index=inputs)
    return training_stage("train", config, config.train, (record,), build_task).key


@pytest.mark.parametrize(
    "change",
    [{"seed": 1}, {"num_steps": 7}, {"optimizer": {"learning_rate": 0.5}}, {"ema_decay": 0.9}, {"precision": "fp32"}],
)
def test_what_changes_the_weights_changes_the_key(change: dict[str, Any]) -> None:
    assert key(**change) != key()


@pytest.mark.parametrize(
    "change",
    [
        {"validate_every_steps": 250},
        {"validate_cases": 3},
        {"checkpoint_every_steps": 250},
        {"keep_checkpoints": 9},
        {"log_every_steps": 1},
    ],
)
def test_what_only_watches_does_not(change: dict[str, Any]) -> None:
    assert key(**change) == key()


@pytest.mark.parametrize("change", [{"validate_cases": 3}, {"validate_every_steps": 250}, {"keep_checkpoints": 9}])
def test_what_selects_the_best_checkpoint_counts(change: dict[str, Any]) -> None:
    assert key(select="best", **change) != key(select="best") != key()


@pytest.mark.parametrize("change", [{"validate_cases": 3}, {"validate_every_steps": 250}])
def test_what_changes_the_steps_that_fit_into_a_time_counts(change: dict[str, Any]) -> None:
    assert key(within="5m", **change) != key(within="5m")
    assert key(within="5m", num_steps=7) == key(within="5m"), "the number of steps is counted"
    assert key(within="5m", keep_checkpoints=9) == key(within="5m")


def test_the_input_counts_and_the_workers_do_not() -> None:
    assert key(inputs="other index") != key()
    assert key(compute={"num_workers": 1, "threads_per_worker": 4}) == key()
