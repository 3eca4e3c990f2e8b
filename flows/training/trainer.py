"""Train a task on Ray Train workers, and follow what they report: to the terminal, to MLflow, into the history."""

from __future__ import annotations

import logging
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from data_pipelines.errors import TrainingDiverged
from data_pipelines.temporary import remove_leftovers, temporary_folder
from flows.cluster.connection import connect_workers
from flows.cluster.local_ray import LocalRayLostError, require_local_ray
from flows.cluster.reservations import free_reservations
from flows.config.pipeline import PipelineConfig
from flows.config.specs import ComputeSpec
from flows.metrics import parse_metric_name
from flows.registry.run_logger import RunLogger
from flows.stages.attempt import Attempt
from flows.training.failures import explain
from flows.training.forecast import Forecast
from flows.training.goodput import Ledger, TimeSplit
from flows.training.groups import WorkerGroups
from flows.training.history import HistoryKeeper, Resume, Start
from flows.training.listener import Listener
from flows.training.space import full_disk, is_full, num_checkpoints
from flows.training.stall import StallAlert
from flows.training.stop import StopFile

if TYPE_CHECKING:
    from ray.train import CheckpointConfig
    from ray.train.torch import TorchTrainer

    from flows.training.task import TrainingTask

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class TrainingResult:
    """Run, resumes and times of a finished training."""

    run_id: str | None
    """MLflow run; None where the server could not be reached."""
    resumes: tuple[Resume, ...]
    """Every resume of the training, those of earlier attempts among them."""
    times: TimeSplit
    """Wall time of all attempts."""
    earlier_seconds: float
    """Wall time of the attempts before."""
    num_steps: int
    """Optimizer steps of the whole training."""


def train(name: str, task: TrainingTask, config: PipelineConfig, attempt: Attempt) -> TrainingResult:
    """Train ``task`` into the attempt. Raises the error of a worker: a user's mistake, or OSError for a full disk."""
    began = time.monotonic()
    connect_workers(config.compute)  # before Ray is imported, which reads its settings then
    from ray.exceptions import RayActorError, RayError
    from ray.train import TrainingFailedError

    from flows.training.progress import FollowReports

    history = HistoryKeeper.of(attempt.stage_uri, attempt.uri())
    forecast = Forecast(task.spec)
    listener = Listener(
        name,
        RunLogger(config, attempt.key),
        history,
        Ledger(began, history.is_first),
        forecast,
        StallAlert(f"{config.registry.name}: {name}", forecast, config.notify),
        attempt.status,
        Start(step=0),
    )
    with listener, temporary_folder("train") as folder:
        reports = folder / "reports.jsonl"
        stop = StopFile(folder / "stop")
        groups = WorkerGroups(
            listener, config.compute, stop, lambda compute: _build_trainer(task, compute, attempt, reports, stop)
        )
        with FollowReports(
            reports, name, task, listener.on_rows, listener.on_start, listener.on_times, listener.stall.check
        ):
            try:
                with require_local_ray():
                    groups.run()
            except (TrainingFailedError, RayError, LocalRayLostError) as error:
                remove_leftovers()  # of the workers, which Ray kills
                if isinstance(error, RayActorError):
                    free_reservations()  # of the controller
                raise _explain(error, name, attempt, task, listener.start) from None
    logger.info("%s: %s", name, history.times.describe())
    times, earlier = history.times, history.earlier.times.wall
    return TrainingResult(listener.run.run_id, history.resumes, times, earlier, listener.start.num_steps)


def _explain(error: Exception, name: str, attempt: Attempt, task: TrainingTask, start: Start) -> Exception:
    """Return what the user is told."""
    found = explain(error)
    if isinstance(found, TrainingDiverged):
        return TrainingDiverged(f"{found}, in {name}")
    if is_full(found):
        spec = task.spec if task.spec.within is None else task.spec.counted(start.num_steps)
        return full_disk(found, attempt.stage_uri, start.checkpoint_bytes, num_checkpoints(spec, start.step))
    return found


def _build_trainer(
    task: TrainingTask, compute: ComputeSpec, attempt: Attempt, reports: Path, stop: StopFile
) -> TorchTrainer:
    """Build the trainer whose workers train ``task`` into the attempt, report to ``reports``, and follow ``stop``."""
    import ray.train

    from flows.training.progress import WriteReports
    from flows.training.ray_trainer import RayTrainer
    from flows.training.worker import TrainJob, WorkerConfig, train_worker, worker_environment
    from flows.training.worker_stop import PassOnStops, StopOnSigterm

    job = TrainJob(
        stage_uri=attempt.stage_uri, threads=compute.threads_per_worker, loader_processes=compute.loader_processes
    )
    worker_config = WorkerConfig(task_type=type(task), task=task.model_dump_json(), job=job.model_dump_json())
    return RayTrainer(
        train_worker,
        train_loop_config=worker_config,
        scaling_config=ray.train.ScalingConfig(
            num_workers=compute.num_workers,
            use_gpu=compute.use_gpu,
            resources_per_worker=compute.worker_resources,
            elastic_resize_monitor_interval_s=math.inf,  # Ray would end the workers without a checkpoint
        ),
        run_config=ray.train.RunConfig(
            name=attempt.name,
            storage_path=attempt.stage_uri,
            failure_config=ray.train.FailureConfig(max_failures=compute.max_failures),
            checkpoint_config=_checkpoints_to_keep(task),
            callbacks=[WriteReports(str(reports)), PassOnStops(stop.path), StopOnSigterm()],
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
