"""What each Ray Train worker runs: one rank of a data-parallel training, whatever the task."""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import ray.train
import ray.train.torch
import torch
import torch.distributed as dist
from pydantic import Field
from safetensors.torch import load_file
from torch import nn

from data_pipelines import storage
from data_pipelines.loading.loader import step_loader
from data_pipelines.specs import Spec
from flows.stages.record import RECORD
from flows.pipelines.diffusion.encoders.clip_task import AlignmentTask
from flows.pipelines.diffusion.encoders.autoencoder_task import AutoencoderTask
from flows.pipelines.diffusion.task import DiffusionTask
from flows.pipelines.segmentation.task import SegmentationTask
from unet_models.training.checkpoint import load_checkpoint, save_checkpoint, verify
from unet_models.training.fit import fit
from unet_models.distributed import world_size
from unet_models.specs.loop import LoopSpec
from unet_models.training.state import TrainState, build_state, evaluation_weights

logger = logging.getLogger(__name__)

CHECKPOINT_PREFIX = "step-"


class TrainJob(Spec):
    """Everything a worker needs to know; travels as JSON."""

    task: Annotated[SegmentationTask | AlignmentTask | AutoencoderTask | DiffusionTask, Field(discriminator="kind")]
    stage_uri: str
    """Folder of the stage, in which any attempt's checkpoints are looked for."""
    threads: int
    loader_processes: int


def train_worker(loop: dict[str, str]) -> None:
    """Train from the newest complete checkpoint of any attempt, or from the start, to the last step."""
    job = TrainJob.model_validate_json(loop["job"])
    spec = job.task.spec
    rank = ray.train.get_context().get_world_rank()
    device = _prepare_device(job)
    torch.manual_seed(spec.seed)
    training = job.task.open(device, rank)
    if job.task.warm_start_uri:
        _warm_start(training.model, job.task.warm_start_uri)
    state = build_state(training.model, spec, device)
    hooks = RayHooks(spec, training.validate, rank, _resume(job, state))
    if state.step == spec.num_steps:  # a former attempt's last checkpoint stands, and is looked for below the stage
        return
    steps = range(state.step, spec.num_steps)
    loader = step_loader(training.batches, steps, job.loader_processes, pin_memory=device.type == "cuda")
    fit(state, training.objective, loader, spec, hooks)


def _warm_start(model: nn.Module, uri: str) -> None:
    with storage.local_file(uri) as path:
        try:
            model.load_state_dict(load_file(path))
        except RuntimeError as error:
            raise ValueError(
                f"train.warm_start: the champion's weights do not fit this network; keep train.model as the champion "
                f"has it, or leave warm_start out ({str(error).splitlines()[0]})"
            ) from None


def iter_checkpoints(stage_uri: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """URI and marker of the complete checkpoints of all attempts, highest step first; others are passed over."""
    found = [
        (name, attempt)
        for attempt in storage.list_names(stage_uri)
        if not attempt.startswith(".") and attempt != RECORD
        for name in storage.list_names(storage.join(stage_uri, attempt))
        if name.startswith(CHECKPOINT_PREFIX)
    ]
    for name, attempt in sorted(found, reverse=True):
        uri = storage.join(stage_uri, attempt, name)
        with storage.local_folder(uri) as folder:
            marker = verify(folder)
        if marker is not None:
            yield uri, marker
        else:
            logger.warning("%s/%s is incomplete: passed over", attempt, name)


@dataclass(slots=True)
class RayHooks:
    """Reports to Ray Train; metrics and checkpoint travel together, and every rank reports equally often."""

    spec: LoopSpec
    measure: Callable[[nn.Module], dict[str, float]]
    rank: int
    curves: list[dict[str, float]] = field(default_factory=list)

    def log(self, step: int, metrics: dict[str, float]) -> None:
        """Show the newest means."""
        self._report(step, metrics)

    def validate(self, state: TrainState) -> dict[str, float]:
        """Measure the weights that would be evaluated."""
        with evaluation_weights(state) as model:
            metrics = self.measure(model)
        if metrics:
            self._report(state.step, metrics)
        return metrics

    def checkpoint(self, state: TrainState, metrics: dict[str, float]) -> None:
        """Upload the state in the background while training goes on."""
        checkpoint = None
        if self.rank == 0:
            folder = Path(tempfile.mkdtemp(prefix="unetflow-checkpoint-"))
            described = {"spec": self.spec.model_dump(mode="json"), "curves": self.curves, "metrics": metrics}
            save_checkpoint(folder, state, described)
            checkpoint = ray.train.Checkpoint(str(folder))
        ray.train.report(
            {"step": state.step, **metrics},
            checkpoint=checkpoint,
            checkpoint_dir_name=f"{CHECKPOINT_PREFIX}{state.step:08d}",
            checkpoint_upload_mode=ray.train.CheckpointUploadMode.ASYNC,
        )

    def _report(self, step: int, metrics: dict[str, float]) -> None:
        self.curves.append({"step": step, **metrics})
        ray.train.report({"step": step, **metrics})


def _prepare_device(job: TrainJob) -> torch.device:
    device = ray.train.torch.get_device()
    if device.type == "cuda":
        torch.backends.cudnn.benchmark = True
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    else:
        torch.set_num_threads(job.threads)
    return device


def _resume(job: TrainJob, state: TrainState) -> list[dict[str, float]]:
    """Load the newest checkpoint, if any; returns the curves up to it."""
    found = [next(iter_checkpoints(job.stage_uri), None) if ray.train.get_context().get_world_rank() == 0 else None]
    if world_size() > 1:
        dist.broadcast_object_list(found, src=0)  # one rank looks: all must start from the same step
    (newest,) = found
    if newest is None:
        return []
    uri, marker = newest
    with storage.local_folder(uri) as folder:
        load_checkpoint(folder, state)
    logger.info("training goes on at step %d", state.step)
    return list(marker["curves"])


def limit_worker_environment(threads: int) -> dict[str, str]:
    """Environment of a worker process: as many OpenMP threads as CPUs reserved, and gloo on a real interface."""
    env = {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
    for name in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"):
        if name in os.environ:
            env[name] = os.environ[name]
    return env
