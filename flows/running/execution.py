"""Run or plan the steps of a pipeline, one after the other, and sum them up in the final record."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from concurrent.futures import wait
from contextvars import copy_context
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeVar

from pydantic import Field

from data_pipelines.errors import ConfigError
from data_pipelines.specs import Spec
from flows.cluster.jobs_api import jobs_address
from flows.config.environment import environment
from flows.config.pipeline import PipelineConfig
from flows.config.run_id import RUN_ID_VARIABLE, current_run_id, unique_name
from flows.pipelines.catalog import pipeline_of
from flows.registry.register import RegistrationFigures, refresh_figures
from flows.running.placement import run_or_submit
from flows.stages.pipeline import Step, branch_key
from flows.stages.record import EvaluationFigures, Figures, Record
from flows.stages.shards import ShardFigures
from flows.stages.stage import Done, Stage, find_record
from flows.training.stop import in_thread

logger = logging.getLogger(__name__)

F = TypeVar("F", bound=Figures)
RunStage = Callable[[Stage[Figures], PipelineConfig], Done[Figures]]


class StageSummary(Spec):
    """One stage in the final record."""

    name: str
    key: str
    uri: str
    cached: bool
    """True for a cache hit."""
    seconds: float
    """Wall time of the attempt that finished."""
    goodput_percent: float | None = None
    """Share of a training's wall time that trained, in percent; None for other stages."""


class RunSummary(Spec):
    """The final record of a pipeline: what ``--json`` prints."""

    pipeline: str
    run_id: str = ""
    """Id of the run, which console, MLflow, Prefect and jobs know it by."""
    model_uri: str | None = None
    model_name: str | None = None
    model_version: int | None = None
    alias: str | None = None
    reason: str | None = None
    """Reason of the gate's decision."""
    tracking_uri: str | None = None
    metrics: dict[str, float] = Field(default={})
    report: str | None = None
    """URI of the report."""
    pages: dict[str, str] = Field(default={})
    """Addresses of the model's and the report's page in a browser."""
    num_quarantined: int = 0
    seconds: float
    stages: tuple[StageSummary, ...]


@dataclass(frozen=True, slots=True)
class PlannedStage:
    """A step with its key and record, as far as they are known before it runs."""

    name: str
    key: str | None
    """None where the stage waits for an earlier one."""
    record: Record[Figures] | None

    @property
    def done(self) -> bool:
        """Tell whether the stage is a cache hit."""
        return self.record is not None


def run_pipeline(config: PipelineConfig, run: RunStage = run_or_submit, until: str | None = None) -> RunSummary:
    """Run every step up to ``until`` (None: all). Raises ConfigError where the pipeline has no such step."""
    started = time.perf_counter()
    with environment({RUN_ID_VARIABLE: current_run_id() or unique_name()}):
        logger.info("run %s: %s, %s", current_run_id(), config.pipeline, config.registry.name)
        done = run_steps(config, run, until)
        return summarise(config, done, time.perf_counter() - started)


def run_steps(
    config: PipelineConfig, run: RunStage = run_or_submit, until: str | None = None
) -> dict[str, Done[Figures]]:
    """Run every step up to ``until`` (None: all); return what each came to, by its name."""
    pipeline = pipeline_of(config)
    configs = pipeline.split(config)
    if len(configs) < 2:
        steps = pipeline.steps_of(config, until)
        pipeline.check(config)
        return _run_chain(steps, config, run, {})
    done: dict[str, Done[Figures]] = {}
    found = _run_branches(config, configs, run, until)
    for place, title in enumerate(configs):
        done |= {branch_key(name, place): each for name, each in found.get(title, {}).items()}
    return done | _run_chain(pipeline.joint_steps_of(config, until), config, run, done)


def _run_branches(
    config: PipelineConfig, configs: Mapping[str, PipelineConfig], run: RunStage, until: str | None
) -> dict[str, dict[str, Done[Figures]]]:
    """Run the branches: side by side as jobs of a cluster, else one after the other. Those come last that wait.

    One after the other, the first step of all comes first: data that make one impossible cost no training of another.
    """
    pipeline = pipeline_of(config)
    assert pipeline.branches is not None
    chains, waits_for = pipeline.chains(config, until), pipeline.branches.waits_for(config)
    numbers = {title: number for number, title in enumerate(chains, start=1)}

    stopped = threading.Event()

    def run_unless_stopped(stage: Stage[Figures], config: PipelineConfig) -> Done[Figures]:
        if stopped.is_set():
            raise InterruptedError(f"{stage.name}: this run was stopped before it")
        return run(stage, config)

    def run_one(title: str, done: Mapping[str, Done[Figures]]) -> dict[str, Done[Figures]]:
        logger.info("%s: run %d of %d", title, numbers[title], len(chains))
        return {**done, **_run_chain(chains[title][len(done) :], configs[title], run_unless_stopped, done)}

    for title in chains:
        pipeline.check(configs[title])
    if jobs_address() is None:
        begun = {}
        for title, steps in chains.items():
            first = [step for step in steps[:1] if not step.waits]
            for step in first:
                logger.info("%s: %s of run %d of %d", title, step.name, numbers[title], len(chains))
            begun[title] = _run_chain(first, configs[title], run, {})
        return {title: run_one(title, done) for title, done in begun.items()}
    return _side_by_side(chains, waits_for, run_one, stopped)


def _side_by_side(
    titles: Iterable[str],
    waits_for: Container[str],
    run_one: Callable[[str, Mapping[str, Done[Figures]]], dict[str, Done[Figures]]],
    stopped: threading.Event,
) -> dict[str, dict[str, Done[Figures]]]:
    """Run each branch in a thread, first those that wait for none; all of them end before an error is raised.

    Where this run is stopped itself, the threads start nothing more, and the process does not wait for those that
    follow jobs.
    """
    found: dict[str, dict[str, Done[Figures]]] = {}
    for waits in (False, True):
        try:
            # Prefect finds its flow, and tags theirs, in the context of whoever calls.
            futures = {
                title: in_thread(partial(copy_context().run, run_one, title, {}), f"branch-{title}")
                for title in titles
                if (title in waits_for) == waits
            }
            wait(futures.values())
        except BaseException:
            stopped.set()
            logger.warning("jobs of these runs continue on the cluster: `unetflow status` lists them")
            raise
        found |= {title: future.result() for title, future in futures.items()}
    return found


def _run_chain(
    steps: Sequence[Step], config: PipelineConfig, run: RunStage, before: Mapping[str, Done[Figures]]
) -> dict[str, Done[Figures]]:
    """Run steps one after the other; they see the records of what was done ``before``."""
    records = {name: each.record for name, each in before.items()}
    done: dict[str, Done[Figures]] = {}
    for step in steps:
        done[step.name] = run(step.plan(config, records), config)
        records[step.name] = done[step.name].record
    return done


def plan_pipeline(
    config: PipelineConfig, until: str | None = None, *, check_external: bool = False
) -> list[PlannedStage]:
    """Look which steps up to ``until`` are cache hits; nothing is run.

    ``check_external`` also checks effects outside the outputs, such as the model version in MLflow.
    """
    pipeline = pipeline_of(config)
    configs = pipeline.split(config)
    if len(configs) < 2:
        steps = pipeline.steps_of(config, until)
        pipeline.check(config)
        return _plan_chain(steps, config, [], check_external=check_external)
    assert pipeline.branches is not None
    joint, waits_for = pipeline.joint_steps_of(config, until), pipeline.branches.waits_for(config)
    found: dict[str, list[PlannedStage]] = {}
    for title, steps in pipeline.chains(config, until).items():
        pipeline.check(configs[title])
        others = waits_for.get(title, ()) if any(step.waits for step in steps) else ()
        before = [stage for each in others for stage in _named(found[each], each)]
        found[title] = _plan_chain(steps, configs[title], before, check_external=check_external)
    planned = [stage for place, title in enumerate(configs) for stage in _named(found.get(title, []), place)]
    return planned + _plan_chain(joint, config, planned, check_external=check_external)


def require_planned(config: PipelineConfig, name: str, key: str) -> None:
    """Raise ConfigError where a stage has another key by now, or those before it would be computed again.

    A job computes what its pipeline planned: data that arrive during a training must not start another one in the job
    of the evaluation.
    """
    *before, planned = plan_pipeline(config, name)
    if planned.key == key:
        return
    changed = next((stage.name for stage in before if not stage.done), name)
    raise ConfigError(
        f"{name}: since this job was planned, what {changed} is computed from has changed (the data, the weights that "
        "train.init names, or variables of this node): nothing was computed; the same command starts from what is "
        "there now"
    )


def _named(stages: Sequence[PlannedStage], run: int | str) -> list[PlannedStage]:
    """Name the stages of one of several runs."""
    return [replace(stage, name=f"{stage.name}.{run}") for stage in stages]


def _plan_chain(
    steps: Sequence[Step], config: PipelineConfig, before: Sequence[PlannedStage], *, check_external: bool
) -> list[PlannedStage]:
    """Look which steps are cache hits, after what was planned ``before``."""
    records = {stage.name: stage.record for stage in before if stage.record is not None}
    planned: list[PlannedStage] = []
    for step in steps:
        if len(records) < len(before) + len(planned):  # an earlier stage has no record yet
            planned.append(PlannedStage(step.name, None, None))
            continue
        stage = step.plan(config, records)
        record = find_record(stage, config.storage_uri, check_external=check_external)
        planned.append(PlannedStage(step.name, stage.key, record))
        if record is not None:
            records[step.name] = record
    return planned


def summarise(config: PipelineConfig, done: Mapping[str, Done[Figures]], seconds: float) -> RunSummary:
    """Build the final record from what each step came to, by its name."""
    records = [each.record for each in done.values()]
    registered = _registration(config, done)
    evaluated = _record_with(EvaluationFigures, records)
    sharded = _record_with(ShardFigures, records)
    shared = set(RunSummary.model_fields) - {"run_id"}  # of the registration it is MLflow's
    registration = registered.model_dump(include=shared) if registered else {}
    return RunSummary(
        pipeline=config.pipeline,
        run_id=current_run_id(),
        **registration,
        metrics=evaluated.figures.metrics if evaluated else {},
        report=evaluated.output("report") if evaluated and "report" in evaluated.outputs else None,
        num_quarantined=sharded.figures.num_quarantined if sharded else 0,
        seconds=round(seconds, 2),
        stages=tuple(
            StageSummary(
                name=name,
                key=each.record.key,
                uri=each.record.uri,
                cached=each.cached,
                seconds=each.record.seconds,
                goodput_percent=each.record.figures.run_metrics().get("goodput_percent"),
            )
            for name, each in done.items()
        ),
    )


def _registration(config: PipelineConfig, done: Mapping[str, Done[Figures]]) -> RegistrationFigures | None:
    """Return the figures of the last registration as they are now."""
    for each in reversed(list(done.values())):
        if isinstance(each.record.figures, RegistrationFigures):
            return refresh_figures(each.record.figures, config.storage_uri) if each.cached else each.record.figures
    return None


def _record_with(figures: type[F], records: Sequence[Record[Any]]) -> Record[F] | None:
    """Return the last record whose figures are of a type."""
    return next((record for record in reversed(records) if isinstance(record.figures, figures)), None)
