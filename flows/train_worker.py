"""What each Ray Train worker runs: one rank of the data-parallel training of a segmentation U-Net."""

from __future__ import annotations

import logging
import math
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import ray.train
import ray.train.torch
import torch
import torch.distributed as dist
from pydantic import BaseModel, ConfigDict

from data_pipelines import storage
from data_pipelines.loader import IMAGE, MASK, StepBatches, VolumePatches, step_loader
from data_pipelines.order import SampleOrder
from data_pipelines.reader import ShardReader
from data_pipelines.shards import read_table
from unet_models.checkpoint import load_checkpoint, save_checkpoint, verify
from unet_models.fit import autocast, fit, world_size
from unet_models.metrics import overlap
from unet_models.objectives import Segmentation
from unet_models.sliding_window import predict_logits
from unet_models.specs import PredictSpec, TrainSpec
from unet_models.training_state import TrainState, build_state, evaluation_weights
from unet_models.unet import UNet

logger = logging.getLogger(__name__)

CHECKPOINT_PREFIX = "step-"


class TrainJob(BaseModel):
    """Everything a worker needs to know; travels as JSON."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    spec: TrainSpec
    index_uri: str
    shards_uri: str
    stage_uri: str
    """Folder of the stage, in which any attempt's checkpoints are looked for."""
    num_channels: int
    classes: dict[str, int]
    threads: int
    loader_processes: int


def train_worker(loop: dict[str, str]) -> None:
    """Train from the newest complete checkpoint of any attempt, or from the start, to the last step."""
    job = TrainJob.model_validate_json(loop["job"])
    spec = job.spec
    rank = ray.train.get_context().get_world_rank()
    device = _prepare_device(job)
    torch.manual_seed(spec.seed)
    model = UNet(spec.model, job.num_channels, len(job.classes), ndim=len(spec.patch_size))
    state = build_state(model, spec, device)
    curves = _resume(job, state)
    reader = ShardReader(read_table(job.index_uri), job.shards_uri)
    split = np.array(read_table(job.index_uri)["split"].to_pylist())
    batches = _training_batches(job, reader, split, rank)
    hooks = RayHooks(job, reader, _spread(np.flatnonzero(split == "val"), spec.validate_cases), rank, device, curves)
    if state.step == spec.num_steps:  # the last checkpoint stands already; say so again, so that it is found
        hooks.checkpoint(state, {})
        return
    loader = step_loader(
        batches, range(state.step, spec.num_steps), job.loader_processes, pin_memory=device.type == "cuda"
    )
    fit(state, Segmentation(spec), loader, spec, hooks)


def newest_checkpoint(stage_uri: str) -> tuple[str, str] | None:
    """(attempt, checkpoint) names of the complete checkpoint with the highest step; incomplete ones are passed over."""
    found = [
        (name, attempt)
        for attempt in storage.list_names(stage_uri)
        if not attempt.startswith(".")
        for name in storage.list_names(storage.join(stage_uri, attempt))
        if name.startswith(CHECKPOINT_PREFIX)
    ]
    for name, attempt in sorted(found, reverse=True):
        with local_checkpoint(storage.join(stage_uri, attempt, name)) as folder:
            if verify(folder):
                return attempt, name
        logger.warning("%s/%s is incomplete: passed over", attempt, name)
    return None


@contextmanager
def local_checkpoint(uri: str) -> Iterator[Path]:
    """The checkpoint's files on this machine: where they lie, or copied for the length of the block."""
    if storage.is_local(uri):
        yield storage.local_path(uri)
        return
    with tempfile.TemporaryDirectory(prefix="unetflow-checkpoint-") as folder:
        storage.copy_folder(uri, folder)
        yield Path(folder)


@dataclass(slots=True)
class RayHooks:
    """Reports to Ray Train; metrics and checkpoint travel together, and every rank reports equally often."""

    job: TrainJob
    reader: ShardReader
    val_rows: np.ndarray
    rank: int
    device: torch.device
    curves: list[dict[str, float]] = field(default_factory=list)

    def log(self, step: int, metrics: dict[str, float]) -> None:
        """Show the newest means."""
        self._report(step, metrics)

    def validate(self, state: TrainState) -> dict[str, float]:
        """Mean foreground Dice of a few validation cases, shared out over the ranks, without mirroring."""
        if not len(self.val_rows):
            return {}
        sums = torch.zeros(2, len(self.job.classes) - 1, dtype=torch.float64)
        with evaluation_weights(state) as model, autocast(self.job.spec.precision, self.device):
            for row in self.val_rows[self.rank :: world_size()]:
                scores = self._dice(model, int(row))
                sums += torch.stack([scores.nan_to_num(), scores.isfinite().double()])
        if world_size() > 1:
            sums = sums.to(self.device)
            dist.all_reduce(sums)
        means = (sums[0] / sums[1]).tolist()
        names = [name for name, value in self.job.classes.items() if value]
        present = [mean for mean in means if math.isfinite(mean)]
        metrics = {f"val/dice/{name}": mean for name, mean in zip(names, means, strict=True) if math.isfinite(mean)}
        metrics["val/dice"] = float(np.mean(present)) if present else 0.0
        self._report(state.step, metrics)
        return metrics

    def checkpoint(self, state: TrainState, metrics: dict[str, float]) -> None:
        """Upload the state in the background while training goes on."""
        checkpoint = None
        if self.rank == 0:
            folder = Path(tempfile.mkdtemp(prefix="unetflow-checkpoint-"))
            save_checkpoint(folder, state, {"spec": self.job.spec.model_dump(mode="json"), "curves": self.curves})
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

    def _dice(self, model: torch.nn.Module, row: int) -> torch.Tensor:
        image = torch.from_numpy(self.reader.array(row, IMAGE).copy()).to(self.device)
        logits = predict_logits(model, image, self.job.spec.patch_size, PredictSpec(tta=False))
        prediction = logits.argmax(0).cpu().numpy()
        confusion = overlap.confusion_matrix(prediction, self.reader.array(row, MASK), len(self.job.classes))
        return torch.from_numpy(overlap.dice(confusion)[1:])


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
    found = [newest_checkpoint(job.stage_uri) if ray.train.get_context().get_world_rank() == 0 else None]
    if world_size() > 1:
        dist.broadcast_object_list(found, src=0)  # one rank looks: all must start from the same step
    (newest,) = found
    if newest is None:
        return []
    with local_checkpoint(storage.join(job.stage_uri, *newest)) as folder:
        load_checkpoint(folder, state)
        marker = verify(folder)
    logger.info("training goes on at step %d", state.step)
    return list(marker["curves"]) if marker else []


def _training_batches(job: TrainJob, reader: ShardReader, split: np.ndarray, rank: int) -> StepBatches:
    spec = job.spec
    rows = np.flatnonzero(split == "train")
    shard_rows = [rows[reader.shard_of[rows] == shard] for shard in np.unique(reader.shard_of[rows])]
    patches = VolumePatches(
        reader=reader,
        read_size=tuple(size + 2 * spec.patch_margin for size in spec.patch_size),
        seed=spec.seed,
        global_batch_size=spec.global_batch_size,
        foreground_fraction=spec.foreground_fraction,
        margin=spec.patch_margin,
    )
    order = SampleOrder(shard_rows, spec.seed)
    return StepBatches(order, patches, spec.global_batch_size, rank, world_size())


def _spread(rows: np.ndarray, count: int) -> np.ndarray:
    """At most ``count`` rows, evenly spread."""
    if len(rows) <= count:
        return rows
    return rows[np.linspace(0, len(rows) - 1, count).round().astype(int)] if count else rows[:0]


def limit_worker_environment(threads: int) -> dict[str, str]:
    """Environment of a worker process: as many OpenMP threads as CPUs reserved, and gloo on a real interface."""
    env = {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
    for name in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"):
        if name in os.environ:
            env[name] = os.environ[name]
    return env
