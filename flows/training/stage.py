"""A stage that trains: shards -> checkpoint, data-parallel on Ray Train, whatever the task."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data_pipelines import storage
from flows.cluster.connection import ensure_workers
from flows.config.pipeline import Config
from flows.config.specs import ComputeSpec
from flows.stages.attempt import Attempt
from flows.stages.record import Record
from flows.stages.stage import Stage
from flows.training.warm_start import find_base
from unet_models.specs.loop import LoopSpec, ModelTrainSpec

if TYPE_CHECKING:
    from ray.train.torch import TorchTrainer

    from flows.training.task import TrainingTask

MISTAKES = (ValueError, FloatingPointError)

OBSERVING = {"validate_every_steps", "validate_cases", "checkpoint_every_steps", "keep_checkpoints", "log_every_steps"}
"""Fields that watch or save a training without changing its weights (unless the best checkpoint is selected)."""


def training_stage(
    name: str,
    config: Config,
    spec: LoopSpec,
    inputs: tuple[Record, ...],
    open_task: Callable[[Attempt], TrainingTask],
    finish: Callable[[Attempt], None] = lambda attempt: None,
) -> Stage:
    """Plan the stage: its key holds its inputs' digests and everything that changes the weights.

    ``open_task`` says what to train, and may write what the workers need into the attempt; ``finish`` may add outputs
    to those of the training (``weights``, ``checkpoint``, ``curves``).
    """
    unseen = {"warm_start"} | (OBSERVING if spec.select == "last" else set())
    identity = spec.model_dump(mode="json", exclude=unseen)
    base = find_base(config, inputs) if isinstance(spec, ModelTrainSpec) and spec.warm_start else None
    if base is not None:
        identity["warm_start"] = base.sha256

    def compute(attempt: Attempt) -> None:
        task = open_task(attempt)
        if base is not None:
            attempt.figures["warm_start"] = base.figures
            task = task.model_copy(update={"warm_start_uri": base.uri})
        _train(name, task, config, attempt)
        finish(attempt)

    return Stage(name, identity, inputs, compute)


def read_curves(record: Record) -> list[dict[str, float]]:
    """Rows of ``step`` and the figures reported there."""
    return json.loads(storage.read_bytes(record.output("curves")))


def curves_by_name(rows: list[dict[str, float]]) -> dict[str, list[tuple[int, float]]]:
    """Figure -> (step, value)."""
    curves: dict[str, list[tuple[int, float]]] = {}
    for row in rows:
        for name, value in row.items():
            if name != "step":
                curves.setdefault(name, []).append((int(row["step"]), value))
    return curves


def _train(name: str, task: TrainingTask, config: Config, attempt: Attempt) -> None:
    """Train ``task`` on Ray Train workers and declare the chosen checkpoint and the curves as outputs."""
    ensure_workers(config.compute)  # before Ray is imported, which reads its settings then
    from ray.train.v2.api.exceptions import WorkerGroupError

    from flows.training.progress import FollowReports

    with tempfile.TemporaryDirectory(prefix="unetflow-train-") as folder:
        reports = Path(folder) / "reports.jsonl"
        trainer = _build_trainer(task, config.compute, attempt, reports)
        tracker = _Tracker(config, attempt)
        with FollowReports(reports, name, task, tracker.log):
            try:
                trainer.fit()
            except WorkerGroupError as error:
                # A mistake in data or settings keeps its type and words, so that it is not tried again.
                mistakes = (e for e in error.worker_failures.values() if isinstance(e, MISTAKES))
                raise next(mistakes, error) from None
    _declare(attempt, task)
    attempt.figures |= {"run_id": tracker.run_id, "num_workers": config.compute.num_workers}


def _build_trainer(task: TrainingTask, compute: ComputeSpec, attempt: Attempt, reports: Path) -> TorchTrainer:
    """Workers that train ``task`` into the attempt and say how far they are in ``reports``."""
    import ray.train
    from ray.train.torch import TorchTrainer

    from flows.training.progress import WriteReports
    from flows.training.worker import TrainJob, limit_worker_environment, train_worker

    job = TrainJob.model_validate(
        {
            "task": task,
            "stage_uri": attempt.stage_uri,
            "threads": compute.threads_per_worker,
            "loader_processes": compute.loader_processes,
        }
    )
    return TorchTrainer(
        train_worker,
        train_loop_config={"job": job.model_dump_json()},
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
            worker_runtime_env={"env_vars": limit_worker_environment(compute.threads_per_worker)},
        ),
    )


class _Tracker:
    """Logs training's figures to one MLflow run, and goes on without it if the server fails."""

    def __init__(self, config: Config, attempt: Attempt) -> None:
        from flows.registry import tracking

        self.tracking = tracking
        self.run_id: str | None = None
        with tracking.going_on_without("opening the MLflow run"):
            root = config.storage_uri
            self.client = tracking.connect(root)
            self.run_id = tracking.open_run(
                self.client, root, config.registry.experiment, attempt.key, f"{config.registry.name}-{attempt.key[:8]}"
            )
            tracking.log_parameters(self.client, self.run_id, config.model_dump(mode="json"))

    def log(self, rows: list[dict[str, float]]) -> None:
        if self.run_id is not None:
            with self.tracking.going_on_without("logging to MLflow"):
                self.tracking.log_metrics(self.client, self.run_id, rows)


def _checkpoints_to_keep(task: TrainingTask) -> Any:
    """The newest, and the best by validation where there is one."""
    import ray.train

    if not task.spec.validate_cases:
        return ray.train.CheckpointConfig(num_to_keep=task.spec.keep_checkpoints)
    return ray.train.CheckpointConfig(
        num_to_keep=task.spec.keep_checkpoints,
        checkpoint_score_attribute=task.score,
        checkpoint_score_order="max" if task.higher_is_better else "min",
    )


def _declare(attempt: Attempt, task: TrainingTask) -> None:
    """Name the chosen checkpoint's files and the curves as outputs. Any attempt's checkpoints count."""
    from flows.training.worker import iter_checkpoints
    from unet_models.training.checkpoint import MARKER, MODEL

    checkpoints = iter_checkpoints(attempt.stage_uri)
    newest = next(checkpoints, None)
    if newest is None:
        raise RuntimeError(f"training ended without a complete checkpoint below {attempt.stage_uri}")
    uri, marker = newest
    attempt.write("curves", "curves.json", json.dumps(marker["curves"]).encode())
    if task.spec.select == "best":
        scored = [c for c in (newest, *checkpoints) if task.score in c[1]["metrics"]]
        sign = 1 if task.higher_is_better else -1
        uri, marker = max(scored, key=lambda c: sign * c[1]["metrics"][task.score], default=newest)
    attempt.add("weights", storage.join(uri, MODEL))
    attempt.add("checkpoint", storage.join(uri, MARKER))
    attempt.figures["step"] = marker["step"]
