"""Training state: all tensors and the step that training changes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import nn

from unet_models.precision import computes_bf16, resolve_precision
from unet_models.specs.loop import LoopSpec
from unet_models.training.optimisation import Ema, build_optimizer

CHANNELS_LAST = {2: torch.channels_last, 3: torch.channels_last_3d}
"""Channels-last memory format by number of spatial axes."""


@dataclass(slots=True)
class TrainState:
    """Model, optimizer, moving average and step: all that is needed to resume training exactly."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    ema: Ema | None
    step: int = 0
    """Finished optimizer steps."""


def build_state(model: nn.Module, spec: LoopSpec, device: torch.device) -> TrainState:
    """Build the initial state of ``model``, moved to ``device`` in the memory format of ``spec``."""
    model = model.to(device)
    axes = {parameter.ndim - 2 for parameter in model.parameters()} & CHANNELS_LAST.keys()
    if spec.channels_last and axes:
        memory_format = CHANNELS_LAST[max(axes)]
        model = model.to(memory_format=memory_format)  # type: ignore[call-overload]  # documented, not in torch's stubs
    ema = Ema(model, spec.ema_decay) if spec.ema_decay else None
    precision = resolve_precision(spec.precision, has_bf16=computes_bf16(device))  # workers have agreed on one before
    return TrainState(model, build_optimizer(model.parameters(), spec.optimizer, precision), ema)


@contextmanager
def evaluation_weights(state: TrainState) -> Iterator[nn.Module]:
    """Yield the model in evaluation mode with the weights to evaluate: the moving average, where there is one.

    The model has its own weights and is in training mode again after the block.
    """
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
