"""Recording hooks, and comparison of training states bit by bit."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from unet_models.training.checkpoint import save_checkpoint
from unet_models.training.state import TrainState

CPU = torch.device("cpu")


@dataclass
class Recorder:
    """Hooks that record their calls; with a folder, they save each checkpoint there."""

    folder: Path | None = None
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
