"""Code of each Ray Train worker: one rank of a data-parallel training, whatever the task."""

from __future__ import annotations

import os
from typing import TypedDict

import ray.train
import ray.train.torch
import torch

from data_pipelines import storage
from data_pipelines.specs import Spec
from data_pipelines.temporary import remove_leftovers
from flows.training.checkpoints import count_checkpoints
from flows.training.schedule import plan_steps, read_steps
from flows.training.space import check_space, num_checkpoints
from flows.training.stop import Stopped, StopReason
from flows.training.task import TrainingTask
from flows.training.worker_hooks import RayHooks
from flows.training.worker_start import all_compute_bf16, find_newest, load_initial, resume
from flows.training.worker_stop import drained_nodes
from unet_models.precision import resolve_precision
from unet_models.training.checkpoint import estimate_bytes
from unet_models.training.fit import fit
from unet_models.training.state import build_state

KEEP_FREED_MEMORY = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(4 << 30)}
"""Settings of glibc's allocator: all blocks on the heap, whose free end is returned to the kernel from 4 GB on."""


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
    newest = find_newest(job.stage_uri, rank)
    has_bf16 = all_compute_bf16(device)
    precision = resolve_precision(task.spec.precision, has_bf16=has_bf16)
    task = task.model_copy(update={"spec": task.spec.model_copy(update={"precision": precision})})
    wanted = task.spec
    schedule = plan_steps(task, newest.num_steps, job.loader_processes, device, rank)
    task = task.model_copy(update={"spec": schedule.spec})
    spec = task.spec
    torch.manual_seed(spec.seed)
    training = task.open(device, rank)
    if task.initial_uri and not newest.uri:
        load_initial(training.model, task.initial_uri)
    state = build_state(training.model, spec, device)
    resume(newest, schedule, state, wanted, has_bf16=has_bf16)
    score = task.score if spec.validate_cases else ""
    hooks = RayHooks(spec, training.validate, rank, score, newest.curves)
    if state.step == spec.num_steps:  # an earlier attempt's last checkpoint is complete: the stage finds it
        return None
    if rank == 0:
        attempt_uri = storage.join(job.stage_uri, ray.train.get_context().get_experiment_name())
        number = num_checkpoints(spec, state.step, count_checkpoints(attempt_uri))
        check_space(job.stage_uri, estimate_bytes(state, spec.optimizer), number)
    loader = read_steps(training, range(state.step, spec.num_steps), job.loader_processes, device)
    reason = StopReason(fit(state, training.objective, hooks.clock.waiting(loader), spec, hooks))
    if reason is StopReason.NONE:
        return None
    return Stopped(step=state.step, reason=reason, drained_nodes=drained_nodes()).model_dump_json()


def _prepare_device(job: TrainJob) -> torch.device:
    device = ray.train.torch.get_device()
    if device.type == "cuda":
        torch.backends.cudnn.benchmark = True
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    else:
        torch.set_num_threads(job.threads)
    return device


def worker_environment(threads: int) -> dict[str, str]:
    """Build a worker's environment: as many OpenMP threads as CPUs reserved, and gloo on a real interface.

    Freed memory is kept for the next allocation: by default glibc returns the large blocks of feature maps to the
    kernel, which clears each of their pages again in every step (docs/experiments.md has what that costs on a CPU).
    """
    env = {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads), **KEEP_FREED_MEMORY}
    for name in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"):
        if name in os.environ:
            env[name] = os.environ[name]
    return env
