"""Train a task on Ray Train workers, and follow what they report: to the terminal, to MLflow, into the history."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from data_pipelines.errors import NOT_RETRYABLE
from data_pipelines.temporary import temporary_folder
from flows.cluster.connection import connect_workers
from flows.config.pipeline import PipelineConfig
from flows.config.specs import ComputeSpec
from flows.metrics import parse_metric_name
from flows.registry.run_logger import WHOLE_RUN, RunLogger
from flows.stages.attempt import Attempt
from flows.stages.status import StatusKeeper
from flows.training.clock import LoopReport
from flows.training.forecast import Forecast
from flows.training.goodput import Ledger, TimeSplit
from flows.training.history import HistoryKeeper, Resume, Start, resume_tags
from flows.training.space import full_disk, is_full, num_checkpoints
from flows.training.stall import StallAlert

if TYPE_CHECKING:
    from ray.train import CheckpointConfig
    from ray.train.torch import TorchTrainer

    from flows.training.curves import CurveRow
    from flows.training.task import TrainingTask

logger = logging.getLogger(__name__)

SHOWN = {"loss": "train/loss", "gpu_memory_gib": "gpu_memory"}
"""Field of the status to the metric that it shows."""


@dataclass(frozen=True, slots=True)
class Trained:
    """Run, resumes and times of a finished training."""

    run_id: str | None
    """MLflow run; None where the server could not be reached."""
    resumes: tuple[Resume, ...]
    """Every resume of the training, those of earlier attempts among them."""
    times: TimeSplit
    """Wall time of all attempts."""
    earlier_seconds: float
    """Wall time of the attempts before."""


def train(name: str, task: TrainingTask, config: PipelineConfig, attempt: Attempt) -> Trained:
    """Train ``task`` into the attempt. Raises the error of a worker: a user's mistake, or OSError for a full disk."""
    began = time.monotonic()
    connect_workers(config.compute)  # before Ray is imported, which reads its settings then
    from ray.train.v2.api.exceptions import ControllerError, WorkerGroupError

    from flows.training.progress import FollowReports

    history = HistoryKeeper.of(attempt.stage_uri, attempt.uri())
    forecast = Forecast(task.spec)
    listener = _Listener(
        name,
        RunLogger(config, attempt.key),
        history,
        Ledger(began, history.is_first),
        forecast,
        StallAlert(f"{config.registry.name}: {name}", forecast, config.notify),
        attempt.status,
        Start(step=0),
    )
    attempt.status.update(num_steps=task.spec.num_steps)
    with listener, temporary_folder("train") as folder:
        reports = folder / "reports.jsonl"
        trainer = _build_trainer(task, config.compute, attempt, reports)
        with FollowReports(
            reports, name, task, listener.on_rows, listener.on_start, listener.on_times, listener.stall.check
        ):
            try:
                trainer.fit()
            except ControllerError as error:  # of a worker, that ends the training, see WriteReports
                raise error.controller_failure from None
            except WorkerGroupError as error:
                raise _reason(list(error.worker_failures.values()), attempt, task, listener.start) or error from None
    logger.info("%s: %s", name, history.times.describe())
    return Trained(listener.run.run_id, history.resumes, history.times, history.earlier.times.wall)


@dataclass(slots=True)
class _Listener:
    """Passes reports on to MLflow and to the history; ``with listener:`` is an attempt, whose time it books."""

    name: str
    run: RunLogger
    history: HistoryKeeper
    ledger: Ledger
    forecast: Forecast
    stall: StallAlert
    status: StatusKeeper
    start: Start
    """Where the workers started last."""

    def __enter__(self) -> None:
        self.run.__enter__()

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.ledger.end(time.monotonic(), succeeded=kind is None)
        self._spend()
        if kind is None:
            self.run.log([{"step": WHOLE_RUN, **self.history.times.metrics()}])
        self.run.__exit__()
        self.ledger.add_server(time.monotonic())
        self._spend()
        self.history.finish()

    def on_times(self, report: LoopReport) -> None:
        self.ledger.add(report)
        self.forecast.add(report)
        self.stall.report()
        self._spend()
        pace = self.forecast.seconds_per_step
        self.status.update(
            step=report.step,
            seconds_left=self.forecast.seconds_left,
            steps_per_second=1 / pace if pace else None,
            goodput_percent=self.history.times.goodput_percent,
            **({"checkpoint_at": time.time()} if report.is_checkpoint else {}),
        )

    def _spend(self) -> None:
        self.history.spend(self.ledger.split(), self.ledger.num_trained)

    def on_rows(self, rows: list[CurveRow]) -> None:
        self.history.reach(int(rows[-1]["step"]))
        self.status.update(**{field: rows[-1][name] for field, name in SHOWN.items() if name in rows[-1]})
        self.run.log(rows)

    def on_start(self, start: Start) -> None:
        self.start = start
        self.ledger.start(start.step)
        self.forecast.start(start.step)
        self.stall.report()
        self.status.update(step=start.step, seconds_left=None, steps_per_second=None)
        if resume := self.history.start(start):
            logger.warning("%s: %s", self.name, resume.describe())
            self.run.tag(resume_tags(self.history.resumes))


def _reason(failures: Sequence[Exception], attempt: Attempt, task: TrainingTask, start: Start) -> Exception | None:
    """Return what the user is told; None: the failures of the workers as they are."""
    for failure in failures:
        if isinstance(failure, NOT_RETRYABLE):  # keeps its type and words, so that it is not retried
            return failure
    for failure in failures:
        if is_full(failure):
            number = num_checkpoints(task.spec, start.step)
            return full_disk(failure, attempt.stage_uri, start.checkpoint_bytes, number)
    return None


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
