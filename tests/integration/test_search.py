"""A search on real workers of Ray Tune, and what a trial reports."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from data_pipelines import storage
from data_pipelines.shards.index import read_table, write_table
from flows.pipelines.segmentation.config import SegmentationConfig
from flows.pipelines.segmentation.search.space import SEGMENTATION_SPACE
from flows.pipelines.segmentation.search.stage import SearchFigures
from flows.pipelines.segmentation.shard import VolumeShardFigures, shard_stage
from flows.pipelines.segmentation.task import SegmentationTask
from flows.pipelines.segmentation.train import build_task
from flows.stages.record import Record, read_record
from flows.stages.stage import run_stage
from flows.training.figures import TrainingFigures
from flows.tuning.inner import inner_split
from flows.tuning.run import FINALS, TRIALS, read_trials
from flows.tuning.spec import SearchSpec
from flows.tuning.trial import Outcome, TrialJob, run_trial
from tests.support.project import Project

SEARCH = {"within": "5m", "num_trials": 3, "trial": "0.5s", "over": ["width", "skip"], "max_parameters": 20_000}
CONFIG: dict[str, Any] = {
    "data": {"layout": "phantoms", "num_phantoms": 12, "split_seed": 1},
    "search": SEARCH,
    "train": {"patch_size": [16, 16, 16], "validate_cases": 1, "model": {"channels": [4, 8]}},
    "compute": {"num_workers": 2},
}


@pytest.fixture(scope="module")
def sharded(tmp_path_factory: pytest.TempPathFactory) -> tuple[SegmentationConfig, Record[VolumeShardFigures]]:
    config = SegmentationConfig.model_validate({**CONFIG, "storage": str(tmp_path_factory.mktemp("search"))})
    return config, run_stage(shard_stage(config.data, config.storage_uri), config.storage_uri).record


def job_of(sharded: tuple[SegmentationConfig, Record[VolumeShardFigures]], folder: Path, **search: Any) -> TrialJob:
    config, shards = sharded
    task = build_task(config, shards)
    uri = storage.join(str(folder), "index.parquet")
    write_table(uri, inner_split(read_table(task.index_uri), 5, 0))
    return TrialJob(
        task_type=SegmentationTask,
        task=task.model_copy(update={"index_uri": uri}).model_dump_json(),
        space=SEGMENTATION_SPACE,
        search=SearchSpec.model_validate(SEARCH | search).model_dump_json(),
        seconds=0.5,
        num_rungs=9,
        validate_cases=1,
        threads=1,
        loader_processes=0,
        use_gpu=False,
    )


def test_a_trial_reports_at_every_rung_and_the_configuration_has_no_limits(
    sharded: tuple[SegmentationConfig, Record[VolumeShardFigures]], tmp_path: Path
) -> None:
    drawn: list[Outcome] = []
    run_trial({"skip": "add"}, job_of(sharded, tmp_path), drawn.append)
    assert 1 <= len(drawn) <= 9
    assert drawn[-1].rung == 9
    assert [each.rung for each in drawn] == sorted({each.rung for each in drawn}), "one report at each"
    assert drawn[-1].step == drawn[-1].num_steps
    assert drawn[-1].seconds_per_step > 0
    assert [each.seconds for each in drawn] == sorted(each.seconds for each in drawn)
    configured: list[Outcome] = []
    run_trial({}, job_of(sharded, tmp_path, max_parameters=1), configured.append)
    assert configured[-1].step == configured[-1].num_steps, "it is compared with: it has no limits"
    assert configured[0].refused == ""


def test_what_exceeds_a_limit_or_cannot_be_built_is_refused(
    sharded: tuple[SegmentationConfig, Record[VolumeShardFigures]], tmp_path: Path
) -> None:
    found: list[Outcome] = []
    run_trial({"width": 32}, job_of(sharded, tmp_path), found.append)
    run_trial({"skip": "sideways"}, job_of(sharded, tmp_path), found.append)
    assert [each.score for each in found] == [0, 0]
    assert "parameters, more than search.max_parameters" in found[0].refused
    assert "UNet" in found[1].refused


def test_the_command_trains_and_registers_what_was_found(tmp_path: Path) -> None:
    project = Project(tmp_path, yaml.safe_dump({**CONFIG, "registry": {"name": "searched", "export": []}}))
    words = ("search", str(project.config), "--within", "4m")
    changes = ("--set", "train.num_steps=150", "--set", "search.max_parameters=null")  # one at least trains to its end
    found = project.run(*words, *changes)
    stages = {stage["name"]: stage for stage in found["stages"]}
    assert list(stages) == ["shard", "search", "train", "evaluate", "register"]
    record = read_record(stages["search"]["uri"], SearchFigures)
    assert record is not None
    trials, finals = (list(read_trials(storage.join(record.uri, name))) for name in (TRIALS, FINALS))
    figures = record.figures
    assert (figures.num_trials, figures.num_finals) == (len(trials), len(finals)) == (3, 2)
    assert finals[0].values == {}
    chosen = next(trial for trial in finals if trial.values == figures.values)
    assert chosen.is_whole
    assert chosen.outcome.score == figures.score >= figures.configured_score
    report = storage.read_bytes(record.output("report"))
    assert b"as configured" in report
    assert b"The best, trained longer" in report
    trained = read_record(stages["train"]["uri"], TrainingFigures)
    assert trained is not None
    assert trained.figures.step == figures.num_steps
    assert found["alias"] == "champion"
    again = project.run(*words, *changes)
    assert all(stage["cached"] for stage in again["stages"])
