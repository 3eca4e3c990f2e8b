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
from torch.optim.adamw import adamw

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
        dtype: torch.dtype = torch.bfloat16,
    ) -> None:
        """Divide the parameters by their shapes. ``momentum`` is read for matrices, ``betas`` for the others.

        Matrices are orthogonalised in ``dtype``; all ranks must use the same, or their weights drift apart.
        """
        known = list(parameters)
        groups = [
            {"params": [each for each in known if is_matrix(each)], "is_matrix": True},
            {"params": [each for each in known if not is_matrix(each)], "is_matrix": False},
        ]
        settings = {"lr": lr, "momentum": momentum, "betas": betas, "weight_decay": weight_decay, "eps": 1e-8}
        super().__init__([group for group in groups if group["params"]], settings)
        self.dtype = dtype

    @overload
    def step(self, closure: None = None) -> None: ...

    @overload
    def step(self, closure: Any) -> float: ...

    @torch.no_grad()
    def step(self, closure: Any = None) -> float | None:
        """Update every parameter that has a gradient."""
        assert closure is None
        for group in self.param_groups:
            parameters = [parameter for parameter in group["params"] if parameter.grad is not None]
            (self._muon if group["is_matrix"] else self._adamw)(parameters, group)
        return None

    def _muon(self, parameters: list[Tensor], group: dict[str, Any]) -> None:
        for parameter in parameters:
            state, gradient = self.state[parameter], parameter.grad
            assert gradient is not None
            if not state:
                state["momentum_buffer"] = torch.zeros_like(parameter)
            average = state["momentum_buffer"].lerp_(gradient, 1 - group["momentum"])
            # Nesterov; the gradient may lie otherwise in memory than the weight.
            ahead = as_matrix(torch.lerp(gradient, average, group["momentum"], out=torch.empty_like(parameter)))
            scale = RMS * max(ahead.shape) ** 0.5
            matrix = as_matrix(parameter)
            direction = orthogonalise(ahead, self.dtype)
            matrix.mul_(1 - group["lr"] * group["weight_decay"]).sub_(direction, alpha=group["lr"] * scale)

    def _adamw(self, parameters: list[Tensor], group: dict[str, Any]) -> None:
        for parameter in parameters:
            if not self.state[parameter]:
                moments = {name: torch.zeros_like(parameter) for name in ("exp_avg", "exp_avg_sq")}
                self.state[parameter] |= {"step": torch.tensor(0.0, device=parameter.device), **moments}
        states = [self.state[parameter] for parameter in parameters]
        first, second = group["betas"]
        adamw(
            parameters,
            [parameter.grad for parameter in parameters if parameter.grad is not None],
            [state["exp_avg"] for state in states],
            [state["exp_avg_sq"] for state in states],
            [],
            [state["step"] for state in states],
            fused=True,
            amsgrad=False,
            beta1=first,
            beta2=second,
            lr=group["lr"],
            weight_decay=group["weight_decay"],
            eps=group["eps"],
            maximize=False,
        )


def is_matrix(parameter: Tensor) -> bool:
    """Tell whether Muon updates a parameter: a weight of at least ``MIN_CHANNELS`` on both sides."""
    return parameter.ndim >= 2 and min(parameter.shape[:2]) >= MIN_CHANNELS


def as_matrix(weight: Float[Tensor, "rows ..."]) -> Float[Tensor, "rows columns"]:
    """Return a view of a weight as a matrix. Its columns are in the order of memory, which changes no step."""
    in_memory = weight if weight.is_contiguous() else weight.movedim(1, -1)  # channels last
    return in_memory.view(len(weight), -1)


def num_moments(parameter: Tensor) -> int:
    """Count the tensors of its size that are kept of a parameter."""
    return 1 if is_matrix(parameter) else 2


def orthogonalise(
    matrix: Float[Tensor, "rows columns"], dtype: torch.dtype = torch.bfloat16
) -> Float[Tensor, "rows columns"]:
    """Bring the singular values of a matrix to 0.7 .. 1.2, by Newton-Schulz iteration in ``dtype``.

    bfloat16 is enough (Jordan 2024), but many times slower than float32 on hardware that has no instructions for it.
    """
    x = matrix.to(dtype)
    x = x.T if matrix.shape[0] > matrix.shape[1] else x
    x = x / (x.norm() + 1e-7)
    a, b, c = COEFFICIENTS
    for _ in range(ROUNDS):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return (x.T if matrix.shape[0] > matrix.shape[1] else x).float()
