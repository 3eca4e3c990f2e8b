"""Muon (Jordan 2024): steps of momentum whose matrices are orthogonalised, so that every direction is learned alike.

A convolution is the matrix of its outputs by all else. Steps have the size of AdamW's (Liu 2025), so that its learning
rates hold. Weights with few channels on either side, biases and normalisations take steps of AdamW.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, overload

import torch
from jaxtyping import Float
from torch import Tensor, nn

MIN_CHANNELS = 8
"""Channels that a weight must have on both sides."""
COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Of the odd polynomial that brings singular values near 1, each time that it is applied (Jordan 2024)."""
ROUNDS = 5
RMS = 0.2
"""Root mean square of a step at learning rate 1: about that of AdamW's."""


class Muon(torch.optim.Optimizer):
    """Muon for matrices, AdamW for other parameters."""

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        lr: float,
        *,
        momentum: float = 0.95,
        betas: tuple[float, float] = (0.9, 0.999),
        weight_decay: float = 0.0,
    ) -> None:
        """Divide the parameters by their shapes. ``momentum`` is read for matrices, ``betas`` for the others."""
        known = list(parameters)
        groups = [
            {"params": [each for each in known if is_matrix(each)], "is_matrix": True},
            {"params": [each for each in known if not is_matrix(each)], "is_matrix": False},
        ]
        settings = {"lr": lr, "momentum": momentum, "betas": betas, "weight_decay": weight_decay, "eps": 1e-8}
        super().__init__([group for group in groups if group["params"]], settings)

    @overload
    def step(self, closure: None = None) -> None: ...

    @overload
    def step(self, closure: Any) -> float: ...

    @torch.no_grad()
    def step(self, closure: Any = None) -> float | None:
        """Update every parameter that has a gradient."""
        assert closure is None
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
                step = self._muon if group["is_matrix"] else self._adamw
                parameter.sub_(step(parameter, parameter.grad, group), alpha=group["lr"])
        return None

    def _muon(self, parameter: Tensor, gradient: Tensor, group: dict[str, Any]) -> Tensor:
        state = self.state[parameter]
        if not state:
            state["momentum_buffer"] = torch.zeros_like(parameter)
        average = state["momentum_buffer"].lerp_(gradient, 1 - group["momentum"])
        ahead = gradient.lerp(average, group["momentum"])  # Nesterov
        matrix = ahead.flatten(1)
        scale = RMS * max(matrix.shape) ** 0.5
        return orthogonalise(matrix).mul_(scale).view(parameter.shape).to(parameter.dtype)

    def _adamw(self, parameter: Tensor, gradient: Tensor, group: dict[str, Any]) -> Tensor:
        state = self.state[parameter]
        if not state:
            state["step"] = torch.tensor(0.0)
            state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(parameter), torch.zeros_like(parameter)
        state["step"] += 1
        count, (first, second) = float(state["step"]), group["betas"]
        average = state["exp_avg"].lerp_(gradient, 1 - first)
        square = state["exp_avg_sq"].mul_(second).addcmul_(gradient, gradient, value=1 - second)
        size = (square / (1 - second**count)).sqrt_().add_(group["eps"])
        return average / (1 - first**count) / size


def is_matrix(parameter: Tensor) -> bool:
    """Tell whether Muon updates a parameter: a weight of at least ``MIN_CHANNELS`` on both sides."""
    return parameter.ndim >= 2 and min(parameter.shape[:2]) >= MIN_CHANNELS


def num_moments(parameter: Tensor) -> int:
    """Count the tensors of its size that are kept of a parameter."""
    return 1 if is_matrix(parameter) else 2


def orthogonalise(matrix: Float[Tensor, "rows columns"]) -> Float[Tensor, "rows columns"]:
    """Bring the singular values of a matrix to 0.7 .. 1.2, by Newton-Schulz iteration in bfloat16."""
    x = matrix.bfloat16()
    x = x.T if matrix.shape[0] > matrix.shape[1] else x
    x = x / (x.norm() + 1e-7)
    a, b, c = COEFFICIENTS
    for _ in range(ROUNDS):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return (x.T if matrix.shape[0] > matrix.shape[1] else x).float()
