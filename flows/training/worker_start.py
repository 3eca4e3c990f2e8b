"""Start of a worker: the newest usable checkpoint of any attempt, or weights that were trained before."""

from __future__ import annotations

from dataclasses import dataclass, field

import ray.train
import ray.train.torch
import torch
import torch.distributed as dist
from safetensors.torch import load_file
from torch import nn

from data_pipelines import storage
from flows.training.checkpoints import CheckpointSearch
from flows.training.curves import CurveRow
from flows.training.history import Start, UnusableCheckpoint
from flows.training.progress import START
from flows.training.schedule import Schedule
from unet_models.distributed import sum_over_ranks, world_size
from unet_models.precision import computes_bf16
from unet_models.specs.loop import LoopSpec
from unet_models.training.checkpoint import estimate_bytes, load_checkpoint
from unet_models.training.state import TrainState


@dataclass(frozen=True, slots=True)
class Newest:
    """The newest usable checkpoint, from which training starts; ``uri`` is empty where there is none."""

    uri: str = ""
    unusable: tuple[UnusableCheckpoint, ...] = ()
    curves: list[CurveRow] = field(default_factory=list)
    num_steps: int | None = None
    """Steps of the training that saved it."""
    precision: str = ""
    """Numeric precision that it was trained in."""


def find_newest(stage_uri: str, rank: int) -> Newest:
    """Find the newest usable checkpoint of any attempt; one rank looks: all must start from the same step."""
    found = [_look_for_newest(stage_uri) if rank == 0 else Newest()]
    if world_size() > 1:
        dist.broadcast_object_list(found, src=0)
    return found[0]


def _look_for_newest(stage_uri: str) -> Newest:
    search = CheckpointSearch(stage_uri)
    uri, marker = next(iter(search), ("", None))
    if marker is None:
        return Newest(unusable=tuple(search.unusable))
    saved = LoopSpec.model_validate(marker.spec, extra="ignore")
    return Newest(uri, tuple(search.unusable), list(marker.curves), saved.num_steps, saved.precision)


def resume(newest: Newest, schedule: Schedule, state: TrainState, wanted: LoopSpec, *, has_bf16: bool) -> None:
    """Load the newest usable checkpoint, if any, and report where training starts, and what differs from ``wanted``."""
    if newest.uri:
        with storage.local_folder(newest.uri) as folder:
            load_checkpoint(folder, state)
    warmup = schedule.spec.optimizer.warmup_steps
    start = Start(
        step=state.step,
        unusable=newest.unusable,
        checkpoint_bytes=estimate_bytes(state, schedule.spec.optimizer),
        num_workers=world_size(),
        num_steps=schedule.spec.num_steps,
        seconds_per_step=schedule.seconds_per_step,
        validating_seconds=schedule.validating_seconds,
        measuring_seconds=schedule.measuring_seconds,
        warmup_steps=warmup if warmup < wanted.optimizer.warmup_steps else None,
        precision=schedule.spec.precision,
        precision_before=newest.precision,
        has_bf16=has_bf16,
    )
    ray.train.report({START: start.model_dump_json()})


def all_compute_bf16(device: torch.device) -> bool:
    """Tell whether the devices of all ranks have instructions for bf16; every rank must call it."""
    lacking = torch.tensor([float(not computes_bf16(device))])
    return not sum_over_ranks(lacking, device).item()


def load_initial(model: nn.Module, uri: str) -> None:
    """Load the weights that the network takes over; the others stay as they are."""
    with storage.local_file(uri) as path:
        model.load_state_dict(load_file(path), strict=False)
