"""Every network on a GPU: outputs and gradients of float64 on a CPU, in float32, bf16 and compiled."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.support import denoisers
from tests.support.exports import perturbed
from tests.support.members import MEMBERS, small
from unet_models.networks.build import build_denoiser, build_network
from unet_models.precision import autocast

Call = Callable[[Any, torch.device, torch.dtype], Tensor]
"""Computes a network's output on a device, its inputs of a type."""
FLOOR, FACTOR = 1e-4, 3.0
"""Errors, as shares of the norm, may be this large, or as many times those of the CPU in the same precision: narrow
networks whose norms see few voxels are ill-conditioned wherever they run."""


def relative_error(got: Tensor, want: Tensor) -> float:
    return float((got.double().cpu() - want).norm() / want.norm().clamp_min(1e-12))


def gradients(model: nn.Module, call: Call, device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Return a network's output, and its gradients in one vector."""
    output = call(model, device, dtype)
    weights = torch.linspace(-1, 1, output.numel(), device=device, dtype=torch.float64).view(output.shape)
    (output.double() * weights).mean().backward()
    return output.detach(), torch.cat([p.grad.double().cpu().flatten() for p in model.parameters()])


def check(
    model: nn.Module, call: Call, gpu: torch.device, precision: str, *, layout: str, compiled: bool = False
) -> None:
    """Compare output and gradients with those of float64, and that error with the CPU's own."""
    model.train()
    cpu = torch.device("cpu")
    want = gradients(copy.deepcopy(model).double(), call, cpu, torch.float64)
    errors = {}
    for device in (cpu, gpu):
        there = copy.deepcopy(model).to(device, memory_format=getattr(torch, layout))
        if compiled and device is gpu:
            there.compile(fullgraph=True)
        with autocast(precision, device):
            got = gradients(there, call, device, torch.float32)
        errors[device.type] = [relative_error(one, other) for one, other in zip(got, want, strict=True)]
    for here, other in zip(errors[gpu.type], errors["cpu"], strict=True):
        assert here <= max(FLOOR, FACTOR * other), f"errors of output and gradients: {errors}"


def segmentation(name: str, ndim: int) -> tuple[nn.Module, Call]:
    """Build a member of the family with the smallest images that are one voxel over a multiple."""
    network = build_network(small(name, (8, 16, 24)), 2, 3, ndim)
    size = (17, 25, 16)[:ndim]
    if any(network.border):
        parts = zip(size, network.border, network.remainder, network.divisor, strict=True)
        size = tuple(n + 2 * border + (remainder - n - 2 * border) % step for n, border, remainder, step in parts)
    images = torch.randn(2, 2, *size, generator=torch.Generator().manual_seed(0))

    def call(model: Any, device: torch.device, dtype: torch.dtype) -> Tensor:
        outputs = model(images.to(device, dtype))
        outputs = outputs if isinstance(outputs, list) else [outputs]
        return torch.cat([output.flatten() for output in outputs])

    return perturbed(network), call


def denoising(name: str) -> tuple[nn.Module, Call]:
    """Build a backbone of the denoiser, conditioned on text."""
    spec = denoisers.BACKBONES[name]
    given = denoisers.inputs(spec)

    def call(model: Any, device: torch.device, dtype: torch.dtype) -> Tensor:
        there = {key: each.to(device, dtype if each.is_floating_point() else None) for key, each in given.items()}
        found: Tensor = model(**there)
        return found

    return denoisers.perturbed(build_denoiser(spec)), call


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("ndim", [2, 3])
@pytest.mark.parametrize("name", MEMBERS)
def test_member(gpu: torch.device, name: str, ndim: int, precision: str) -> None:
    layout = "channels_last" if ndim == 2 else "channels_last_3d"
    check(*segmentation(name, ndim), gpu, precision, layout=layout)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("name", denoisers.BACKBONES)
def test_denoiser(gpu: torch.device, name: str, precision: str) -> None:
    check(*denoising(name), gpu, precision, layout="channels_last")


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("name", ["nnunet", "attention_unet", "mednext_s"])
def test_compiled_member(gpu: torch.device, name: str, precision: str) -> None:
    check(*segmentation(name, 3), gpu, precision, layout="channels_last_3d", compiled=True)


@pytest.mark.parametrize("name", denoisers.BACKBONES)
def test_compiled_denoiser(gpu: torch.device, name: str) -> None:
    check(*denoising(name), gpu, "fp32", layout="channels_last", compiled=True)
