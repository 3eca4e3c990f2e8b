"""Optimizer, learning-rate schedule and exponential moving average of the weights."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from unet_models.precision import Computed
from unet_models.specs.loop import OptimizerSpec
from unet_models.training.muon import Muon

MOMENTUM = {"sgd": 0.99, "muon": 0.95}
"""Momentum of each optimizer, where the configuration names none."""


def learning_rate(spec: OptimizerSpec, step: int, num_steps: int) -> float:
    """Compute the learning rate of optimizer step ``step``, from 0: a pure function, so that it is resumed exactly."""
    if step < spec.warmup_steps:
        return spec.learning_rate * (step + 1) / spec.warmup_steps
    progress = (step - spec.warmup_steps) / max(num_steps - spec.warmup_steps, 1)
    if spec.schedule == "poly":
        return spec.learning_rate * (1 - progress) ** 0.9
    if spec.schedule == "cosine":
        return spec.learning_rate * 0.5 * (1 + math.cos(math.pi * progress))
    return spec.learning_rate


def build_optimizer(
    parameters: Iterable[nn.Parameter], spec: OptimizerSpec, precision: Computed = "bf16"
) -> torch.optim.Optimizer:
    """Build AdamW, or SGD with Nesterov momentum, in fused form; or Muon, whose matrix products have ``precision``."""
    momentum = MOMENTUM.get(spec.name, 0.0) if spec.momentum is None else spec.momentum
    if spec.name == "muon":
        return Muon(
            parameters,
            spec.learning_rate,
            momentum=momentum,
            betas=spec.betas,
            weight_decay=spec.weight_decay,
            dtype=torch.bfloat16 if precision == "bf16" else torch.float32,
        )
    if spec.name == "sgd":
        return torch.optim.SGD(
            parameters,
            lr=spec.learning_rate,
            momentum=momentum,
            nesterov=momentum > 0,
            weight_decay=spec.weight_decay,
            fused=True,
        )
    return torch.optim.AdamW(
        parameters, lr=spec.learning_rate, betas=spec.betas, weight_decay=spec.weight_decay, fused=True
    )


class Ema:
    """Exponential moving average of a model's parameters and floating-point buffers; integer buffers are copied.

    The decay warms up as min(decay, (1 + step) / (10 + step)), so that early averages forget the initial weights.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.tensors = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """Add the weights after optimizer step ``step`` to the average."""
        decay = min(self.decay, (1 + step) / (10 + step))
        averages, currents = [], []
        for name, tensor in model.state_dict().items():
            if tensor.is_floating_point():
                averages.append(self.tensors[name])
                currents.append(tensor)
            else:
                self.tensors[name].copy_(tensor)
        torch._foreach_lerp_(averages, currents, 1 - decay)

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Load a saved average."""
        for name, tensor in self.tensors.items():
            tensor.copy_(tensors[name])
