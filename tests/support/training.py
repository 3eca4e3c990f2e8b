"""A tiny segmentation training, hooks that record it, and comparison of training states bit by bit."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from data_pipelines.batches import VolumeBatch
from data_pipelines.loading.order import rank_positions
from unet_models.networks.build import build_network
from unet_models.specs.loop import OptimizerSpec
from unet_models.specs.networks import UNetSpec
from unet_models.specs.segmentation import TrainSpec
from unet_models.training.checkpoint import save_checkpoint
from unet_models.training.fit import fit
from unet_models.training.objectives import Segmentation
from unet_models.training.state import TrainState, build_state

CPU = torch.device("cpu")
SPEC = TrainSpec(
    patch_size=(8, 8),
    patch_margin=2,
    global_batch_size=2,
    num_steps=5,
    model=UNetSpec(channels=(4, 8, 8), deep_supervision=1),
    optimizer=OptimizerSpec(name="sgd", learning_rate=0.05, momentum=0.9),
    precision="fp32",
    log_every_steps=1,
    validate_every_steps=100,
    checkpoint_every_steps=100,
)
"""Training of a tiny U-Net, which others are derived from."""


@dataclass
class Recorder:
    """Hooks that record their calls; with a folder, they save each checkpoint there. ``stop_at`` asks to stop in the
    step after it."""

    folder: Path | None = None
    stop_at: int | None = None
    stop_as: int = 1
    num_asked: int = 0
    metrics: list[dict[str, float]] = field(default_factory=list)
    calls: list[tuple[str, int]] = field(default_factory=list)

    def log(self, step: int, metrics: dict[str, float]) -> None:
        self.calls.append(("log", step))
        self.metrics.append(metrics)

    def validate(self, state: TrainState) -> dict[str, float]:
        self.calls.append(("validate", state.step))
        return {"val/dice": state.step / 10}

    def checkpoint(self, state: TrainState, metrics: dict[str, float]) -> None:
        self.calls.append(("checkpoint", state.step))
        self.metrics.append(metrics)
        if self.folder is not None:
            save_checkpoint(self.folder / str(state.step), state, spec={}, curves=[], metrics=metrics)

    def stop_reason(self) -> int:
        self.num_asked += 1
        return self.stop_as if self.stop_at is not None and self.num_asked > self.stop_at else 0

    @property
    def losses(self) -> list[float]:
        return [m["train/loss"] for m in self.metrics[:-1]]  # the last entry came with the checkpoint


def tensors_of(state: TrainState) -> dict[str, Tensor]:
    """Collect every tensor that training changes, by name."""
    found = dict(state.model.state_dict())
    if state.ema is not None:
        found |= {f"ema/{name}": tensor for name, tensor in state.ema.tensors.items()}
    for name, parameter in state.model.named_parameters():
        found |= {f"{name}/{moment}": value for moment, value in state.optimizer.state[parameter].items()}
    return found


def assert_identical(got: TrainState, want: TrainState) -> None:
    """Assert that two states are equal bit by bit."""
    got_tensors, want_tensors = tensors_of(got), tensors_of(want)
    assert got_tensors.keys() == want_tensors.keys()
    assert [name for name, tensor in want_tensors.items() if not torch.equal(tensor, got_tensors[name])] == []
    assert got.step == want.step


def batches(spec: TrainSpec, first_step: int = 0, rank: int = 0, world_size: int = 1) -> Iterator[VolumeBatch]:
    """Iterate over this rank's share of noise whose bright voxels are the foreground: a pure function of the step."""
    read = [size + 2 * spec.patch_margin for size in spec.patch_size]
    positions = rank_positions(spec.global_batch_size, rank, world_size)
    for step in range(first_step, spec.num_steps):
        images = np.random.default_rng([7, step]).normal(size=(spec.global_batch_size, 1, *read)).astype(np.float32)
        masks = ((images[:, 0] > 0.5).astype(np.uint8) + (images[:, 0] > 1.2)).astype(np.uint8)
        here = slice(positions.start, positions.stop)
        keys = tuple(f"case-{step}-{position}" for position in positions)
        yield VolumeBatch(torch.from_numpy(images[here]), torch.from_numpy(masks[here]), tuple(positions), keys, step)


def fresh(spec: TrainSpec, seed: int = 0, device: torch.device = CPU) -> TrainState:
    """Build the state of a U-Net with random weights of ``seed``."""
    torch.manual_seed(seed)
    return build_state(build_network(spec.model, 1, 3, ndim=len(spec.patch_size)), spec, device)


def trained(
    spec: TrainSpec, rank: int = 0, world_size: int = 1, device: torch.device = CPU
) -> tuple[list[float], TrainState]:
    """Train from scratch as one rank; returns the loss of each step and the final state."""
    state, hooks = fresh(spec, device=device), Recorder()
    fit(state, Segmentation(spec), batches(spec, 0, rank, world_size), spec, hooks)
    return hooks.losses, state
