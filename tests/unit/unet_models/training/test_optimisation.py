"""Learning rates, optimizers and the weight average against closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from unet_models.specs.loop import OptimizerSpec
from unet_models.training.optimisation import Ema, build_optimizer, learning_rate


def rates(schedule: str, warmup: int, num_steps: int) -> list[float]:
    spec = OptimizerSpec(learning_rate=0.1, schedule=schedule, warmup_steps=warmup)
    return [learning_rate(spec, step, num_steps) for step in range(num_steps)]


@pytest.mark.parametrize(
    ("schedule", "warmup", "expected"),
    [
        ("poly", 0, [0.1, 0.1 * 0.75**0.9, 0.1 * 0.5**0.9, 0.1 * 0.25**0.9]),
        ("cosine", 0, [0.1, 0.05 * (1 + math.sqrt(0.5)), 0.05, 0.05 * (1 - math.sqrt(0.5))]),
        ("constant", 0, [0.1, 0.1, 0.1, 0.1]),
        ("poly", 2, [0.05, 0.1, 0.1, 0.1 * 0.5**0.9]),
        ("cosine", 2, [0.05, 0.1, 0.1, 0.05]),
        ("constant", 4, [0.025, 0.05, 0.075, 0.1]),
        ("poly", 8, [0.0125, 0.025, 0.0375, 0.05]),  # a warm-up longer than the training
    ],
)
def test_rate_literals(schedule: str, warmup: int, expected: list[float]) -> None:
    assert rates(schedule, warmup, 4) == pytest.approx(expected)


@given(
    schedule=st.sampled_from(["poly", "cosine", "constant"]), warmup=st.integers(0, 20), num_steps=st.integers(1, 60)
)
@settings(deadline=None)
def test_rates_rise_to_the_peak_and_fall_but_not_to_zero(schedule: str, warmup: int, num_steps: int) -> None:
    found = rates(schedule, warmup, num_steps)
    assert all(0 < rate <= 0.1 + 1e-12 for rate in found)
    assert all(a < b for a, b in zip(found[:warmup], found[1:warmup], strict=False))
    assert all(a >= b for a, b in zip(found[warmup:], found[warmup + 1 :], strict=False))


def step_once(spec: OptimizerSpec, weight: list[float], gradients: list[list[float]]) -> torch.Tensor:
    parameter = nn.Parameter(torch.tensor(weight))
    optimizer = build_optimizer([parameter], spec)
    for gradient in gradients:
        parameter.grad = torch.tensor(gradient)
        optimizer.step()
    return parameter.detach()


def test_adamw_by_hand() -> None:
    spec = OptimizerSpec(learning_rate=0.1, weight_decay=0.5, betas=(0.8, 0.9))
    got = step_once(spec, [2.0, -1.0], [[0.3, 0.0]])
    # The first step is a whole learning rate against the sign of the gradient; the decay is apart from it.
    torch.testing.assert_close(got, torch.tensor([2 * (1 - 0.05) - 0.1, -1 * (1 - 0.05)]))
    mean = (0.8 * 0.2 * 0.3 + 0.2 * 0.1) / (1 - 0.8**2)
    square = (0.9 * 0.1 * 0.09 + 0.1 * 0.01) / (1 - 0.9**2)
    got = step_once(spec, [2.0], [[0.3], [0.1]])
    torch.testing.assert_close(got, torch.tensor([1.8 * 0.95 - 0.1 * mean / math.sqrt(square)]))


def test_nesterov_by_hand() -> None:
    spec = OptimizerSpec(name="sgd", learning_rate=0.1, momentum=0.9, weight_decay=0.5)
    w0 = 2.0
    g0 = 0.3 + 0.5 * w0
    w1 = w0 - 0.1 * (g0 + 0.9 * g0)
    g1 = 0.1 + 0.5 * w1
    w2 = w1 - 0.1 * (g1 + 0.9 * (0.9 * g0 + g1))
    torch.testing.assert_close(step_once(spec, [w0], [[0.3]]), torch.tensor([w1]))
    torch.testing.assert_close(step_once(spec, [w0], [[0.3], [0.1]]), torch.tensor([w2]))


# --- Weight average --------------------------------------------------------------------------------------------------


class Model(nn.Module):
    """One weight, one floating-point buffer and one counter."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(2))
        self.register_buffer("mean", torch.zeros(1))
        self.register_buffer("count", torch.tensor(0))

    def set(self, value: float) -> None:
        self.weight.data.fill_(value)
        self.mean.fill_(-value)
        self.count.fill_(int(value))


def test_average_is_the_closed_form_with_warm_up() -> None:
    model = Model()
    ema = Ema(model, decay=0.5)
    values = np.random.default_rng(0).normal(size=20)
    decays = np.array([min(0.5, (1 + step) / (10 + step)) for step in range(1, 21)])
    assert decays[0] == 2 / 11
    assert decays[7] == decays[8] == 0.5  # 9/18: warm
    for step, value in enumerate(values, start=1):
        model.set(value)
        ema.update(model, step)
        # The weight of value i is (1 - d_i) times all later decays; the start, 0, has the product of all.
        later = np.append(np.cumprod(decays[1:step][::-1])[::-1], 1.0)
        expected = float(((1 - decays[:step]) * later * values[:step]).sum())
        torch.testing.assert_close(ema.tensors["weight"], torch.full((2,), expected))
        torch.testing.assert_close(ema.tensors["mean"], torch.tensor([-expected]))


def test_average_of_a_constant_forgets_the_start() -> None:
    model = Model()
    ema = Ema(model, decay=0.9)
    model.set(3.0)
    for step in range(1, 200):
        ema.update(model, step)
    torch.testing.assert_close(ema.tensors["weight"], torch.full((2,), 3.0))


def test_counters_are_copied() -> None:
    model = Model()
    ema = Ema(model, decay=0.9)
    model.set(7.0)
    ema.update(model, 1)
    assert ema.tensors["count"].item() == 7
    assert ema.tensors["count"].dtype == torch.int64


def test_average_is_apart_from_the_model() -> None:
    model = Model()
    ema = Ema(model, decay=0.9)
    model.set(5.0)
    assert (ema.tensors["weight"] == 0).all()
    other = Ema(model, decay=0.9)
    other.load(ema.tensors)
    assert (other.tensors["weight"] == 0).all()
    other.tensors["weight"].fill_(1)
    assert (ema.tensors["weight"] == 0).all()
    assert not ema.tensors["weight"].requires_grad
