"""Code of each Ray Train worker: one rank of a data-parallel training, whatever the task."""

from __future__ import annotations

import logging
import os
import shutil
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypedDict

import ray.train
import ray.train.torch
import torch
import torch.distributed as dist
from safetensors.torch import load_file
from torch import nn

from data_pipelines import storage
from data_pipelines.errors import ConfigError
from data_pipelines.specs import Spec
from data_pipelines.temporary import make_folder, remove_leftovers
from flows.metrics import check_metric_names
from flows.training.checkpoints import CheckpointSearch, checkpoint_name
from flows.training.clock import LoopClock
from flows.training.curves import CurveRow
from flows.training.history import Start, UnusableCheckpoint
from flows.training.progress import START, TIMES
from flows.training.schedule import Schedule, plan_steps, read_steps
from flows.training.space import check_space, is_full, num_checkpoints
from flows.training.stop import Stopped, StopReason
from flows.training.task import TrainingTask, Validate
from flows.training.worker_stop import drained_nodes, stop_reason
from unet_models.distributed import world_size
from unet_models.specs.loop import LoopSpec
from unet_models.training.checkpoint import estimate_bytes, load_checkpoint, save_checkpoint
from unet_models.training.fit import fit
from unet_models.training.state import TrainState, build_state, evaluation_weights

logger = logging.getLogger(__name__)


class TrainJob(Spec):
    """Resources of a worker and the folder it trains into; travels as JSON."""

    stage_uri: str
    """Folder of the stage, in which checkpoints of any attempt are looked for."""
    threads: int
    loader_processes: int


class WorkerConfig(TypedDict):
    """Argument of ``train_worker``: Ray sends the task's class, and task and job as JSON."""

    task_type: type[TrainingTask]
    task: str
    job: str


def train_worker(config: WorkerConfig) -> str | None:
    """Train from the newest complete checkpoint of any attempt, or from the start, to the last step.

    Returns JSON of ``Stopped`` where the workers were asked to stop before it.
    """
    job = TrainJob.model_validate_json(config["job"])
    task = config["task_type"].model_validate_json(config["task"])
    rank = ray.train.get_context().get_world_rank()
    remove_leftovers()
    device = _prepare_device(job)
    newest = _find_newest(job.stage_uri, rank)
    schedule = plan_steps(task, newest.num_steps, job.loader_processes, device, rank)
    task = task.model_copy(update={"spec": schedule.spec})
    spec = task.spec
    torch.manual_seed(spec.seed)
    training = task.open(device, rank)
    if task.warm_start_uri:
        _load_warm_start(training.model, task.warm_start_uri)
    state = build_state(training.model, spec, device)
    _resume(newest, schedule, state)
    hooks = RayHooks(spec, training.validate, rank, newest.curves)
    if state.step == spec.num_steps:  # an earlier attempt's last checkpoint is complete: the stage finds it
        return None
    if rank == 0:
        check_space(job.stage_uri, estimate_bytes(state, spec.optimizer), num_checkpoints(spec, state.step))
    loader = read_steps(training, range(state.step, spec.num_steps), job.loader_processes, device)
    reason = StopReason(fit(state, training.objective, hooks.clock.waiting(loader), spec, hooks))
    if reason is StopReason.NONE:
        return None
    return Stopped(step=state.step, reason=reason, drained_nodes=drained_nodes()).model_dump_json()


@dataclass(slots=True)
class RayHooks:
    """Reports to Ray Train; metrics and checkpoint travel together, and every rank reports equally often."""

    spec: LoopSpec
    measure: Validate
    rank: int
    curves: list[CurveRow] = field(default_factory=list)
    clock: LoopClock = field(default_factory=LoopClock)

    def log(self, step: int, metrics: dict[str, float]) -> None:
        """Report the newest means."""
        if torch.cuda.is_initialized():
            metrics = metrics | {"gpu_memory": torch.cuda.max_memory_allocated() / 2**30}
        with self.clock.measure("report"):
            self._report(step, metrics)

    def validate(self, state: TrainState) -> dict[str, float]:
        """Measure the weights that would be evaluated."""
        with self.clock.measure("validation"):
            with evaluation_weights(state) as model:
                metrics = self.measure(model)
            if metrics:
                self._report(state.step, metrics)
        return metrics

    def checkpoint(self, state: TrainState, metrics: dict[str, float]) -> None:
        """Upload the state in the background while training continues."""
        checkpoint = None
        with self.clock.measure("checkpoint"):
            if self.rank == 0:
                checkpoint = ray.train.Checkpoint(str(self._save(state, metrics)))
            ray.train.report(
                self._row(state.step, metrics),
                checkpoint=checkpoint,
                checkpoint_dir_name=checkpoint_name(state.step),
                checkpoint_upload_mode=ray.train.CheckpointUploadMode.ASYNC,
                checkpoint_upload_fn=_upload,
            )

    def stop_reason(self) -> int:
        """Return why this worker is to stop."""
        return stop_reason()

    def _save(self, state: TrainState, metrics: dict[str, float]) -> Path:
        """Write a checkpoint to a temporary folder, which Ray removes after the upload; one that fails is removed."""
        folder = make_folder("checkpoint")
        try:
            save_checkpoint(folder, state, spec=self.spec.model_dump(mode="json"), curves=self.curves, metrics=metrics)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        return folder

    def _report(self, step: int, metrics: dict[str, float]) -> None:
        check_metric_names(metrics)
        self.curves.append({"step": step, **metrics})
        ray.train.report(self._row(step, metrics))

    def _row(self, step: int, metrics: dict[str, float]) -> dict[str, object]:
        return {"step": step, **metrics, TIMES: self.clock.read().model_dump()}


def _upload(checkpoint: ray.train.Checkpoint, name: str) -> ray.train.Checkpoint:
    """Copy a checkpoint to the storage. Where a disk is full, both the copy and what was copied are removed."""
    target = ray.train.get_context().get_storage()
    try:
        return target.persist_current_checkpoint(checkpoint, name)
    except OSError as error:
        if is_full(error):  # after other errors Ray may try again
            shutil.rmtree(checkpoint.path, ignore_errors=True)
            with suppress(OSError):
                target.storage_filesystem.delete_dir(target.build_checkpoint_path_from_name(name))
        raise


def _load_warm_start(model: nn.Module, uri: str) -> None:
    with storage.local_file(uri) as path:
        try:
            model.load_state_dict(load_file(path))
        except RuntimeError as error:
            raise ConfigError(
                f"train.warm_start: the champion's weights do not fit this network; keep train.model as the champion "
                f"has it, or leave warm_start out ({str(error).splitlines()[0]})"
            ) from None


def _prepare_device(job: TrainJob) -> torch.device:
    device = ray.train.torch.get_device()
    if device.type == "cuda":
        torch.backends.cudnn.benchmark = True
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    else:
        torch.set_num_threads(job.threads)
    return device


def _resume(newest: _Newest, schedule: Schedule, state: TrainState) -> None:
    """Load the newest usable checkpoint, if any, and report where training starts."""
    if newest.uri:
        with storage.local_folder(newest.uri) as folder:
            load_checkpoint(folder, state)
    start = Start(
        step=state.step,
        unusable=newest.unusable,
        checkpoint_bytes=estimate_bytes(state, schedule.spec.optimizer),
        num_workers=world_size(),
        num_steps=schedule.spec.num_steps,
        seconds_per_step=schedule.seconds_per_step,
    )
    ray.train.report({START: start.model_dump_json()})


@dataclass(frozen=True, slots=True)
class _Newest:
    """The newest usable checkpoint, from which training starts; ``uri`` is empty where there is none."""

    uri: str = ""
    unusable: tuple[UnusableCheckpoint, ...] = ()
    curves: list[CurveRow] = field(default_factory=list)
    num_steps: int | None = None
    """Steps of the training that saved it."""


def _find_newest(stage_uri: str, rank: int) -> _Newest:
    """Find the newest usable checkpoint of any attempt; one rank looks: all must start from the same step."""
    found = [_look_for_newest(stage_uri) if rank == 0 else _Newest()]
    if world_size() > 1:
        dist.broadcast_object_list(found, src=0)
    return found[0]


def _look_for_newest(stage_uri: str) -> _Newest:
    search = CheckpointSearch(stage_uri)
    uri, marker = next(iter(search), ("", None))
    if marker is None:
        return _Newest(unusable=tuple(search.unusable))
    saved = LoopSpec.model_validate(marker.spec, extra="ignore")
    return _Newest(uri, tuple(search.unusable), list(marker.curves), saved.num_steps)


def worker_environment(threads: int) -> dict[str, str]:
    """Build a worker's environment: as many OpenMP threads as CPUs reserved, and gloo on a real interface."""
    env = {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
    for name in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"):
        if name in os.environ:
            env[name] = os.environ[name]
    return env
