"""Every variant and seed as a trial of Ray Tune: the pipeline up to its evaluation, whose stages are cache hits."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from data_pipelines.errors import NOT_RETRYABLE, ConfigError
from data_pipelines.progress import Progress
from data_pipelines.remote_errors import pack_error, unpack_error
from data_pipelines.temporary import temporary_folder
from flows.cluster.connection import connect_workers, import_tune
from flows.config.pipeline import PipelineConfig
from flows.config.specs import ComputeSpec
from flows.pipelines.catalog import pipeline_of
from flows.running.execution import plan_pipeline, run_steps
from flows.stages.pipeline import Ablation
from flows.stages.record import Figures, Record
from flows.tuning.fit import fit_trials

logger = logging.getLogger(__name__)

VARIED = "train"
"""First step that differs between variants."""
LAST = "evaluate"
"""Step up to which each variant runs."""
TINY = {"memory": 1.0}
"""Resources of a trial: it only waits for its stages, which reserve their own CPUs and GPUs."""


@dataclass(frozen=True, slots=True)
class PlannedRun:
    """One variant with one seed."""

    variant: str
    seed: int
    config: PipelineConfig


@dataclass(frozen=True, slots=True)
class AblationRun:
    """One variant with one seed, and the records of its stages by step."""

    variant: str
    seed: int
    records: Mapping[str, Record[Figures]]


def find_ablation(config: PipelineConfig, name: str) -> Ablation:
    """Return an ablation of the pipeline. Raises ConfigError where it has none of that name."""
    found = {each.name: each for each in pipeline_of(config).ablations}
    if name not in found:
        choices = ", ".join(found) or "nothing"
        raise ConfigError(f"ablate {name}: pipeline {config.pipeline} can compare {choices}")
    return found[name]


def run_ablation(config: PipelineConfig, ablation: Ablation, seeds: Sequence[int]) -> list[AblationRun]:
    """Train and evaluate every variant with every seed; what is done already is a cache hit.

    Raises ConfigError where trainings could not be compared step by step.
    """
    check_comparable(config)
    run_before(config)
    return run_all(plan_runs(config, ablation, seeds))


def plan_runs(config: PipelineConfig, ablation: Ablation, seeds: Sequence[int]) -> list[PlannedRun]:
    """Return every variant with every seed."""
    config = config.model_copy(update={"storage": config.storage_uri})
    return [
        PlannedRun(variant, seed, with_train(changed, seed=seed))
        for variant, changed in ablation.variants(config).items()
        for seed in seeds
    ]


def run_before(config: PipelineConfig) -> list[Record[Figures]]:
    """Run the stages that the variants share: once, not by several trials at a time. Return their records."""
    names = [step.name for step in pipeline_of(config).steps_of(config)]
    return [done.record for done in run_steps(config, until=names[names.index(VARIED) - 1]).values()]


def run_all(planned: Sequence[PlannedRun]) -> list[AblationRun]:
    """Run what has no records yet; return all of them."""
    configs = [each.config for each in planned]
    missing = [number for number, each in enumerate(configs) if not all(s.done for s in plan_pipeline(each, LAST))]
    if missing:
        _tune(configs, missing)
    return [AblationRun(each.variant, each.seed, _records(each.config)) for each in planned]


def share_cluster(compute: ComputeSpec, num_runs: int) -> tuple[ComputeSpec, int]:
    """Return the resources of each of ``num_runs`` runs, and how many of them the cluster has room for at a time."""
    connect_workers(compute)
    import ray

    has = ray.cluster_resources()
    num_cpus = int(has.get("CPU", 1))
    shared = share_workers(compute, num_runs, num_cpus)
    room = num_cpus // shared.num_cpus
    if shared.use_gpu:
        room = min(room, int(has.get("GPU", 0)) // shared.max_workers)
    return shared, max(1, room)


def share_workers(compute: ComputeSpec, num_runs: int, num_cpus: int) -> ComputeSpec:
    """Return the resources of each run: side by side on few workers they are faster than one after the other on many.

    With GPUs they stay as they are: a worker with a larger share of the batch might not fit into memory.
    """
    if compute.use_gpu:
        return compute
    room = num_cpus // compute.threads_per_worker
    return compute.model_copy(update={"num_workers": min(compute.max_workers, max(1, room // num_runs))})


def check_comparable(config: PipelineConfig) -> None:
    """Raise ConfigError where a variant is several runs, has no validation, or a number of steps of its own."""
    if len(runs := pipeline_of(config).split(config)) > 1:
        raise ConfigError(
            f"ablate: each variant is one training, and this configuration asks for {len(runs)} ({', '.join(runs)}); "
            "set data.fold to a number, without candidates"
        )
    if getattr(config, "search", None) is not None:
        raise ConfigError(
            "ablate: a search would choose another network for each variant; set search to null (its report lists the "
            "settings that it chose)"
        )
    spec = config.train  # type: ignore[attr-defined]  # ablations are of pipelines that train
    if not spec.validate_cases:
        raise ConfigError("ablate: it compares validation step by step; set train.validate_cases above 0")
    if spec.within is not None:
        raise ConfigError(
            "ablate: variants train the same number of steps; set train.num_steps or --within, not train.within"
        )


def with_train(config: PipelineConfig, **changes: object) -> PipelineConfig:
    """Return the configuration with other settings of its training."""
    train = config.train  # type: ignore[attr-defined]  # ablations are of pipelines that train
    return config.model_copy(update={"train": train.model_copy(update=changes)})


def _records(config: PipelineConfig) -> dict[str, Record[Figures]]:
    return {planned.name: planned.record for planned in plan_pipeline(config, LAST) if planned.record is not None}


def _tune(configs: Sequence[PipelineConfig], numbers: Sequence[int]) -> None:
    """Run the pipelines of ``numbers``, as many at a time as the cluster has room for.

    Trials share processes, each of which imports for seconds.
    """
    compute, room = share_cluster(configs[0].compute, len(configs))
    logger.info("ablate: %d runs, up to %d side by side, num_workers %s each", len(numbers), room, compute.num_workers)
    shared = {number: configs[number].model_copy(update={"compute": compute}) for number in numbers}
    tune = import_tune()

    from flows.ablation.listener import RunListener

    def trainable(values: dict[str, Any]) -> None:
        try:
            run_steps(shared[values["number"]], until=LAST)
        except NOT_RETRYABLE as error:
            tune.report({"error": pack_error(error)})
        else:
            tune.report({"error": ""})

    with temporary_folder("ablation") as folder, Progress("ablate", len(numbers), "runs") as progress:
        tuner = tune.Tuner(
            tune.with_resources(trainable, tune.PlacementGroupFactory([TINY])),
            param_space={"number": tune.grid_search(list(numbers))},
            tune_config=tune.TuneConfig(max_concurrent_trials=room, reuse_actors=True),
            run_config=tune.RunConfig(
                storage_path=str(folder), name="runs", verbose=0, callbacks=[RunListener(progress)]
            ),
        )
        results = fit_trials(tuner)
    for result in results:
        if result.error is not None:
            raise result.error
        if result.metrics["error"]:
            raise unpack_error(result.metrics["error"])
