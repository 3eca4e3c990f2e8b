"""The number of steps with which an ablation ends in time follows from what short runs took."""

from __future__ import annotations

import pytest

from data_pipelines.errors import ConfigError
from flows.ablation.budget import RunCost, cost_of, plan_cost, plan_steps, with_steps
from flows.ablation.run import AblationRun
from flows.pipelines.segmentation.config import SegmentationConfig
from flows.stages.record import Figures, Record
from flows.training.figures import TrainingFigures
from flows.training.goodput import TimeSplit


def record(stage: str, figures: Figures, seconds: float) -> Record[Figures]:
    return Record(stage=stage, key="k", uri="/nowhere", outputs={}, figures=figures, seconds=seconds)


def run_of(**times: float) -> AblationRun:
    training = TrainingFigures(step=20, run_id=None, num_workers=1, times=TimeSplit(**times))
    records = {"shard": record("shard", Figures(), 100), "train": record("train", training, 40)}
    return AblationRun("all", 0, records | {"evaluate": record("evaluate", Figures(), 7)})


def test_cost_of_a_run_is_taken_from_its_records() -> None:
    cost = cost_of(run_of(wall=40, productive=9, data=1, validation=2, start=23, pace=5))
    assert cost == RunCost(step=10 / 20, validation=2, rest=40 + 7 - 10 - 2 - 5), "what came before is no part of it"


def test_steps_and_validations_fill_the_time() -> None:
    cost = RunCost(step=0.5, validation=2, rest=35)
    assert cost.count_steps(35 + 10 * 2 + 0.5 * 300) == 300
    assert cost.count_steps(35 + 10 * 2 + 0.5 * 300 - 0.01) == 299
    assert cost.count_steps(30) < 0


def test_the_highest_of_each_part_is_planned_and_starts_in_new_processes_do_not_count() -> None:
    cold, warm = [RunCost(1, 5, 80), RunCost(2, 4, 75)], [RunCost(1.5, 3, 30), RunCost(1.8, 3, 35)]
    assert plan_cost([*cold, *warm], room=2) == RunCost(2, 5, 35)
    assert plan_cost(cold, room=2) == RunCost(2, 5, 80), "there are no more runs than room"


def test_runs_side_by_side_share_the_time_and_what_does_not_fit_is_refused() -> None:
    cost = RunCost(step=0.5, validation=2, rest=35)
    pair = (35 + 10 * 2 + 0.5 * 300) / 0.95
    assert plan_steps(cost, 2 * pair + 0.1, num_runs=3, room=2) == 300
    message = r"3 runs, 2 side by side, do not fit into the 1m5s that are left of the time: each takes 0.5 s a step"
    with pytest.raises(ConfigError, match=message):
        plan_steps(cost, 65, num_runs=3, room=2)
    with pytest.raises(ConfigError, match="do not fit into the 0s"):
        plan_steps(cost, -10, num_runs=3, room=2)


@pytest.mark.parametrize(("num_steps", "every", "warmup"), [(10, 1, 1), (305, 31, 30), (5000, 500, 200)])
def test_trainings_are_validated_ten_times(num_steps: int, every: int, warmup: int) -> None:
    config = SegmentationConfig.model_validate({"train": {"optimizer": {"warmup_steps": 200}, "select": "best"}})
    train = with_steps(config, num_steps).train  # type: ignore[attr-defined]  # of the segmentation
    assert (train.num_steps, train.validate_every_steps, train.optimizer.warmup_steps) == (num_steps, every, warmup)
    assert -(-num_steps // every) == 10, "the last step is validated, too"
    type(train).model_validate(train.model_dump())  # checkpoints stay validated where the best is selected
