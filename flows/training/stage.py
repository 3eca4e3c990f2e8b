"""A stage that trains: shards to a checkpoint, data-parallel on Ray Train, whatever the task."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from data_pipelines import storage
from data_pipelines.errors import NOT_RETRYABLE
from flows.cluster.connection import connect_workers
from flows.config.pipeline import PipelineConfig
from flows.config.specs import ComputeSpec
from flows.metrics import parse_metric_name
from flows.registry.tracking import RunLogger
from flows.stages.attempt import Attempt
from flows.stages.record import Figures, Record
from flows.stages.stage import Stage
from flows.training.figures import TrainingFigures
from flows.training.provenance import write_trained_on
from flows.training.warm_start import find_warm_start
from unet_models.specs.loop import LoopSpec, ModelTrainSpec

if TYPE_CHECKING:
    from ray.train import CheckpointConfig
    from ray.train.torch import TorchTrainer

    from flows.training.task import TrainingTask
    from unet_models.training.checkpoint import CheckpointMarker

OBSERVING_FIELDS = {
    "validate_every_steps",
    "validate_cases",
    "checkpoint_every_steps",
    "keep_checkpoints",
    "log_every_steps",
}
"""Fields that observe or save a training without changing its weights (unless the best checkpoint is selected)."""


def add_nothing(attempt: Attempt) -> None:
    """Add no outputs to those of the training."""


def training_stage(
    name: str,
    config: PipelineConfig,
    spec: LoopSpec,
    inputs: tuple[Record[Figures], ...],
    build_task: Callable[[Attempt], TrainingTask],
    finish: Callable[[Attempt], None] = add_nothing,
    bound_to: Mapping[str, Any] = MappingProxyType({}),
) -> Stage[TrainingFigures]:
    """Plan the stage: its key holds its inputs' digests and everything that changes the weights.

    ``build_task`` describes what to train, and may write what the workers need into the attempt; ``finish`` may add
    outputs to those of the training (``weights``, ``checkpoint``, ``curves``, ``trained_on``). ``bound_to`` is
    recorded, see ``TrainingFigures``: a warm start must have the same.
    """
    ignored = {"warm_start"} | (OBSERVING_FIELDS if spec.select == "last" else set())
    identity = spec.model_dump(mode="json", exclude=ignored)
    warm = isinstance(spec, ModelTrainSpec) and spec.warm_start
    start = find_warm_start(config, inputs, bound_to) if warm else None
    if start is not None:
        identity["warm_start"] = start.sha256

    def compute(attempt: Attempt) -> TrainingFigures:
        task = build_task(attempt)
        if start is not None:
            task = task.model_copy(update={"warm_start_uri": start.uri})
        run_id = _train(name, task, config, attempt)
        marker = _select_checkpoint(attempt, task)
        write_trained_on(attempt, task.index_uri, start.trained_on if start else None)
        finish(attempt)
        return TrainingFigures(
            step=marker.step,
            run_id=run_id,
            num_workers=config.compute.num_workers,
            warm_start=start,
            bound_to=dict(bound_to),
        )

    return Stage(name, identity, inputs, compute, TrainingFigures, uses_gpu=True)


def _train(name: str, task: TrainingTask, config: PipelineConfig, attempt: Attempt) -> str | None:
    """Train ``task`` on Ray Train workers; return the id of the MLflow run."""
    connect_workers(config.compute)  # before Ray is imported, which reads its settings then
    from ray.train.v2.api.exceptions import WorkerGroupError

    from flows.training.progress import FollowReports

    with tempfile.TemporaryDirectory(prefix="unetflow-train-") as folder:
        reports = Path(folder) / "reports.jsonl"
        trainer = _build_trainer(task, config.compute, attempt, reports)
        run = RunLogger(config, attempt.key)
        with FollowReports(reports, name, task, run.log):
            try:
                trainer.fit()
            except WorkerGroupError as error:
                # A mistake in data or settings keeps its type and words, so that it is not retried.
                mistakes = (e for e in error.worker_failures.values() if isinstance(e, NOT_RETRYABLE))
                raise next(mistakes, error) from None
    return run.run_id


def _build_trainer(task: TrainingTask, compute: ComputeSpec, attempt: Attempt, reports: Path) -> TorchTrainer:
    """Build the trainer whose workers train ``task`` into the attempt and write their progress to ``reports``."""
    import ray.train
    from ray.train.torch import TorchTrainer

    from flows.training.progress import WriteReports
    from flows.training.worker import TrainJob, WorkerConfig, train_worker, worker_environment

    job = TrainJob(
        stage_uri=attempt.stage_uri, threads=compute.threads_per_worker, loader_processes=compute.loader_processes
    )
    worker_config = WorkerConfig(task_type=type(task), task=task.model_dump_json(), job=job.model_dump_json())
    return TorchTrainer(
        train_worker,
        train_loop_config=worker_config,
        scaling_config=ray.train.ScalingConfig(
            num_workers=compute.num_workers,
            use_gpu=compute.use_gpu,
            resources_per_worker={"CPU": compute.threads_per_worker} | ({"GPU": 1} if compute.use_gpu else {}),
        ),
        run_config=ray.train.RunConfig(
            name=attempt.name,
            storage_path=attempt.stage_uri,
            failure_config=ray.train.FailureConfig(max_failures=compute.max_failures),
            checkpoint_config=_checkpoints_to_keep(task),
            callbacks=[WriteReports(str(reports))],
            worker_runtime_env={"env_vars": worker_environment(compute.threads_per_worker)},
        ),
    )


def _checkpoints_to_keep(task: TrainingTask) -> CheckpointConfig:
    """Keep the newest, and the best by validation where there is one."""
    import ray.train

    if not task.spec.validate_cases:
        return ray.train.CheckpointConfig(num_to_keep=task.spec.keep_checkpoints)
    return ray.train.CheckpointConfig(
        num_to_keep=task.spec.keep_checkpoints,
        checkpoint_score_attribute=task.score,
        checkpoint_score_order="max" if parse_metric_name(task.score).metric.better == "higher" else "min",
    )


def _select_checkpoint(attempt: Attempt, task: TrainingTask) -> CheckpointMarker:
    """Declare the selected checkpoint's files and the curves as outputs. Checkpoints of any attempt count."""
    from flows.training.worker import iter_checkpoints
    from unet_models.training.checkpoint import MARKER, MODEL

    checkpoints = iter_checkpoints(attempt.stage_uri)
    newest = next(checkpoints, None)
    if newest is None:
        raise RuntimeError(f"training ended without a complete checkpoint below {attempt.stage_uri}")
    uri, marker = newest
    attempt.write("curves", "curves.json", json.dumps(marker.curves).encode())
    if task.spec.select == "best":
        metric = parse_metric_name(task.score).metric
        scored = [found for found in (newest, *checkpoints) if task.score in found[1].metrics]
        uri, marker = max(scored, key=lambda found: metric.score(found[1].metrics[task.score]), default=newest)
    attempt.add("weights", storage.join(uri, MODEL))
    attempt.add("checkpoint", storage.join(uri, MARKER))
    return marker
