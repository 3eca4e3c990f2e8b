"""Run and plan the steps of a pipeline: one after the other, up to one, cache hits as such, and summed up."""

from __future__ import annotations

import signal
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from data_pipelines.errors import ConfigError
from flows.config.pipeline import PipelineConfig
from flows.config.run_id import RUN_ID_VARIABLE, current_run_id
from flows.pipelines.catalog import PIPELINES
from flows.registry.register import RegistrationFigures
from flows.running.execution import RunSummary, plan_pipeline, require_planned, run_pipeline, summarise
from flows.stages.attempt import Attempt
from flows.stages.pipeline import Branches, Pipeline, Records, Step, branch_key
from flows.stages.record import EvaluationFigures
from flows.stages.shards import ShardFigures
from flows.stages.stage import Done, Stage, run_stage
from tests.support.records import CountFigures, finished
from tests.support.signals import DeliveredError, delivered_signals


class NumbersConfig(PipelineConfig):
    """Configuration of a pipeline of three steps."""

    pipeline: str = "numbers"
    first: int = 1
    """Changes the first step and with it all others."""


def plan_step(name: str, before: str | None) -> Step:
    """Plan a step that depends on the one before; ``last`` fails while its folder holds no ``allowed``."""

    def plan(config: NumbersConfig, done: Records) -> Stage[CountFigures]:
        def compute(attempt: Attempt) -> CountFigures:
            if name == "last" and not Path(config.storage, "allowed").exists():
                raise OSError("the disk is full")
            attempt.write("out", "out.txt", name.encode())
            return CountFigures()

        identity = {"first": config.first} if before is None else {}
        inputs = () if before is None else (done[before],)
        effect = Path(config.storage, "effect")
        return Stage(name, identity, inputs, compute, CountFigures, lambda record: name != "last" or effect.exists())

    return Step(name, plan, f"Runs {name}.")


def refuse_zero(config: NumbersConfig) -> None:
    if config.first == 0:
        raise ConfigError("first must not be 0")


NUMBERS = Pipeline(
    "numbers",
    NumbersConfig,
    (plan_step("first", None), plan_step("middle", "first"), plan_step("last", "middle")),
    check=refuse_zero,
)


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> NumbersConfig:
    """A configuration whose last step may run, and whose effect exists."""
    monkeypatch.setitem(PIPELINES, "numbers", NUMBERS)
    for name in ("allowed", "effect"):
        (tmp_path / name).touch()
    return NumbersConfig(storage=str(tmp_path))


def run_here(stage: Stage[Any], config: PipelineConfig) -> Done[Any]:
    return run_stage(stage, config.storage_uri)


def outcome(summary: RunSummary) -> dict[str, bool]:
    return {stage.name: stage.cached for stage in summary.stages}


def test_steps_run_in_order_then_are_cache_hits(config: NumbersConfig) -> None:
    first, again = run_pipeline(config), run_pipeline(config)
    assert outcome(first) == {"first": False, "middle": False, "last": False}
    assert outcome(again) == {"first": True, "middle": True, "last": True}
    assert [stage.key for stage in first.stages] == [stage.key for stage in again.stages]
    assert first.pipeline == "numbers"


def test_a_run_stops_at_a_step_and_resumes_behind_it(config: NumbersConfig) -> None:
    assert outcome(run_pipeline(config, until="middle")) == {"first": False, "middle": False}
    assert outcome(run_pipeline(config)) == {"first": True, "middle": True, "last": False}
    with pytest.raises(ConfigError, match="pipeline numbers has no stage other; it has first, middle, last"):
        run_pipeline(config, until="other")


def test_a_failed_step_leaves_the_earlier_ones_done(config: NumbersConfig, tmp_path: Path) -> None:
    (tmp_path / "allowed").unlink()
    with pytest.raises(OSError, match="the disk is full"):
        run_pipeline(config)
    (tmp_path / "allowed").touch()
    assert outcome(run_pipeline(config)) == {"first": True, "middle": True, "last": False}


def test_stages_are_run_by_what_is_given(config: NumbersConfig) -> None:
    seen = []

    def run(stage: Stage[Any], of: PipelineConfig) -> Done[Any]:
        seen.append((stage.name, of is config))
        return run_here(stage, of)

    run_pipeline(config, run)
    assert seen == [("first", True), ("middle", True), ("last", True)]


def test_the_check_of_a_pipeline_comes_before_anything_runs(config: NumbersConfig, tmp_path: Path) -> None:
    wrong = config.model_copy(update={"first": 0})
    for call in (run_pipeline, plan_pipeline):
        with pytest.raises(ConfigError, match="first must not be 0"):
            call(wrong)
    assert not (tmp_path / "first").exists()


def test_a_plan_runs_nothing_and_knows_the_keys_as_far_as_records_reach(config: NumbersConfig, tmp_path: Path) -> None:
    planned = plan_pipeline(config)
    assert [(stage.name, stage.done, stage.key is None) for stage in planned] == [
        ("first", False, False),
        ("middle", False, True),
        ("last", False, True),
    ]
    assert not (tmp_path / "first").exists()
    run_pipeline(config, until="first")
    planned = plan_pipeline(config)
    assert [(stage.name, stage.done, stage.key is None) for stage in planned] == [
        ("first", True, False),
        ("middle", False, False),
        ("last", False, True),
    ]
    assert [stage.name for stage in plan_pipeline(config, "middle")] == ["first", "middle"]
    another = plan_pipeline(config.model_copy(update={"first": 2}))
    assert another[0].key != planned[0].key
    assert not another[0].done


def test_effects_outside_are_planned_for_only_when_asked(config: NumbersConfig, tmp_path: Path) -> None:
    run_pipeline(config)
    (tmp_path / "effect").unlink()
    assert all(stage.done for stage in plan_pipeline(config))
    assert [stage.done for stage in plan_pipeline(config, check_external=True)] == [True, True, False]


def test_a_job_computes_only_what_was_planned(config: NumbersConfig) -> None:
    run_pipeline(config, run_here, "first")
    middle = plan_pipeline(config, "middle")[-1]
    assert middle.key is not None
    require_planned(config, "middle", middle.key)
    with pytest.raises(
        ConfigError, match="middle: since this job was planned, what middle is computed from has changed"
    ):
        require_planned(config, "middle", "other")
    changed = config.model_copy(update={"first": 2})
    with pytest.raises(
        ConfigError, match="middle: since this job was planned, what first is computed from has changed"
    ):
        require_planned(changed, "middle", middle.key)
    assert not plan_pipeline(changed, "first")[-1].done


def test_the_summary_has_what_consumers_read() -> None:
    shards = ShardFigures(
        num_train=1, num_val=1, num_new=2, shards="shards/a", shard_sizes={}, dataset="d", num_quarantined=3
    )
    registered = RegistrationFigures(
        model_name="m",
        model_version=4,
        model_uri="models:/m@champion",
        alias="champion",
        reason="thresholds met",
        run_id="r",
        tracking_uri="sqlite:///mlflow.db",
        pages={"model": "http://mlflow/m"},
    )
    records = [
        finished("shard", shards),
        finished("evaluate", EvaluationFigures(metrics={"dice": 0.9}), "/store/evaluate/k", report="a/report.html"),
        finished("register", registered),
    ]
    summary = summarise(
        PipelineConfig(pipeline="p"), {each.stage: Done(each, cached=False) for each in records}, 12.345
    )
    assert summary.model_dump(exclude={"stages"}) == {
        "pipeline": "p",
        "run_id": "",
        "model_uri": "models:/m@champion",
        "model_name": "m",
        "model_version": 4,
        "alias": "champion",
        "reason": "thresholds met",
        "tracking_uri": "sqlite:///mlflow.db",
        "metrics": {"dice": 0.9},
        "report": "/store/evaluate/k/a/report.html",
        "pages": {"model": "http://mlflow/m"},
        "num_quarantined": 3,
        "seconds": 12.35,
    }
    assert RunSummary.model_validate_json(summary.model_dump_json()) == summary
    assert summary.stages[0].model_dump() == {
        "name": "shard",
        "key": "key of shard",
        "uri": "/nowhere/stage/key",
        "cached": False,
        "seconds": 1.5,
        "goodput_percent": None,
    }


def test_a_run_has_one_id_for_all_its_stages(
    config: NumbersConfig, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    seen: list[str] = []

    def run(stage: Stage[Any], config: PipelineConfig) -> Done[Any]:
        seen.append(current_run_id())
        return run_here(stage, config)

    caplog.set_level("INFO", "flows")
    monkeypatch.delenv(RUN_ID_VARIABLE, raising=False)
    first, second = run_pipeline(config, run), run_pipeline(config, run)
    assert seen == [first.run_id] * 3 + [second.run_id] * 3
    assert first.run_id != second.run_id
    assert f"run {first.run_id}: numbers, unetflow" in caplog.text
    assert current_run_id() == ""
    monkeypatch.setenv(RUN_ID_VARIABLE, "of the job")
    assert run_pipeline(config, run).run_id == "of the job"


def test_a_pipeline_that_stopped_early_is_summed_up_as_far_as_it_got() -> None:
    done = {"first": Done(finished("first", CountFigures()), cached=True)}
    summary = summarise(PipelineConfig(pipeline="p"), done, 1.0)
    assert (summary.model_uri, summary.metrics, summary.report, summary.num_quarantined) == (None, {}, None, 0)


def join_step(config: NumbersConfig, done: Records) -> Stage[CountFigures]:
    records = [done[branch_key("last", place)] for place in range(3)]
    return Stage("join", {}, tuple(records), lambda attempt: CountFigures(), CountFigures)


def each_number(config: NumbersConfig) -> dict[str, NumbersConfig]:
    """Three runs of a configuration whose number is negative."""
    if config.first > 0:
        return {"numbers": config}
    return {f"number {first}": config.model_copy(update={"first": first}) for first in (1, 2, 3)}


BRANCHED = replace(
    NUMBERS,
    branches=Branches(each_number, "last", (Step("join", join_step, "Joins the runs."),)),
)


@pytest.fixture
def branched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> NumbersConfig:
    monkeypatch.setitem(PIPELINES, "numbers", BRANCHED)
    for name in ("allowed", "effect"):
        (tmp_path / name).touch()
    return NumbersConfig(storage=str(tmp_path), first=-1)


def test_several_runs_are_joined(branched: NumbersConfig, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "flows")
    names = [f"{step}.{place}" for place in range(3) for step in ("first", "middle", "last")]
    assert [stage.name for stage in run_pipeline(branched, run_here).stages] == [*names, "join"]
    assert "number 2: run 2 of 3" in caplog.text
    one = run_pipeline(branched.model_copy(update={"first": 2}), run_here)
    assert outcome(one) == {"first": True, "middle": True, "last": True}
    assert {stage.name: stage.done for stage in plan_pipeline(branched)} == dict.fromkeys([*names, "join"], True)


def test_several_runs_up_to_a_step_of_each(branched: NumbersConfig) -> None:
    assert [stage.name for stage in plan_pipeline(branched, "middle")] == [
        f"{step}.{place}" for place in range(3) for step in ("first", "middle")
    ]
    assert [stage.key for stage in plan_pipeline(branched, "join")][-1] is None
    assert len(run_pipeline(branched, run_here, until="first").stages) == 3


def test_runs_are_side_by_side_where_they_are_jobs(branched: NumbersConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each waits for the two others: one after the other would never end."""
    monkeypatch.setenv("RAY_ADDRESS", "http://127.0.0.1:1")
    together = threading.Barrier(3, timeout=60)

    def wait_and_run(stage: Stage[Any], config: PipelineConfig) -> Done[Any]:
        if stage.name == "first":
            together.wait()
        return run_here(stage, config)

    assert len(run_pipeline(branched, wait_and_run).stages) == 10


def test_a_run_that_is_stopped_starts_nothing_more(branched: NumbersConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "http://127.0.0.1:1")
    together, stopped, ran = threading.Barrier(3, timeout=60), threading.Event(), list[str]()

    def interrupt(stage: Stage[Any], config: PipelineConfig) -> Done[Any]:
        ran.append(stage.name)
        if together.wait() == 0:
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
        stopped.wait(60)
        return run_here(stage, config)

    with delivered_signals(), pytest.raises(DeliveredError):
        run_pipeline(branched, interrupt)
    stopped.set()
    for thread in threading.enumerate():
        if thread.name.startswith("branch-"):
            thread.join()
    assert ran == ["first"] * 3


def test_what_failed_in_one_run_is_all_that_runs_again(branched: NumbersConfig) -> None:
    def fail_once(stage: Stage[Any], config: PipelineConfig) -> Done[Any]:
        if (stage.name, config.first) == ("middle", 2):  # type: ignore[attr-defined]
            raise OSError("killed")
        return run_here(stage, config)

    with pytest.raises(OSError, match="killed"):
        run_pipeline(branched, fail_once)
    cached = {stage.name: stage.cached for stage in run_pipeline(branched, run_here).stages}
    assert [name for name, was in cached.items() if was] == ["first.0", "middle.0", "last.0", "first.1", "first.2"]


def test_a_run_that_cannot_begin_costs_no_other(branched: NumbersConfig) -> None:
    """As a fold without training cases of a class, which its sharding finds."""
    ran: list[tuple[str, int]] = []

    def fail_third(stage: Stage[Any], config: PipelineConfig) -> Done[Any]:
        number: int = config.first  # type: ignore[attr-defined]
        ran.append((stage.name, number))
        if (stage.name, number) == ("first", 3):
            raise ConfigError("no such fold")
        return run_here(stage, config)

    with pytest.raises(ConfigError, match="no such fold"):
        run_pipeline(branched, fail_third)
    assert ran == [("first", 1), ("first", 2), ("first", 3)]
