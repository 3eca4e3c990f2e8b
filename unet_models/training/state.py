"""Everything that training changes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import nn

from unet_models.training.optimisation import Ema, build_optimizer
from unet_models.specs.loop import LoopSpec

CHANNELS_LAST = {2: torch.channels_last, 3: torch.channels_last_3d}


@dataclass(slots=True)
class TrainState:
    """Tensors and one integer; with them, training goes on as if it had never stopped."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    ema: Ema | None
    step: int = 0
    """Optimizer steps done."""


def build_state(model: nn.Module, spec: LoopSpec, device: torch.device) -> TrainState:
    """A fresh state around ``model``, moved to ``device``, its convolutions' weights in the asked memory format."""
    model = model.to(device)
    axes = {parameter.ndim - 2 for parameter in model.parameters()} & CHANNELS_LAST.keys()
    if spec.channels_last and axes:
        memory_format = CHANNELS_LAST[max(axes)]
        model = model.to(memory_format=memory_format)  # type: ignore[call-overload]  # documented, missing in torch's stubs
    ema = Ema(model, spec.ema_decay) if spec.ema_decay else None
    return TrainState(model, build_optimizer(model.parameters(), spec.optimizer), ema)


@contextmanager
def evaluation_weights(state: TrainState) -> Iterator[nn.Module]:
    """The model in evaluation mode with the weights that would be evaluated: the average, where there is one."""
    raw = None
    if state.ema is not None:
        raw = {name: tensor.clone() for name, tensor in state.model.state_dict().items()}
        state.model.load_state_dict(state.ema.tensors)
    state.model.eval()
    try:
        yield state.model
    finally:
        state.model.train()
        if raw is not None:
            state.model.load_state_dict(raw)
