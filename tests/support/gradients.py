"""Gradients of every parameter, and the parameters that have none."""

from __future__ import annotations

import copy
import re
from collections.abc import Collection

import torch
from torch import Tensor, nn

from unet_models.specs.networks import UNetSpec

SUBTRACTED = {
    "inverted_residual": None,
    "mednext": r"\.filter\.bias",
    "plain": r"\.convs\.\d+\.conv\.bias",
    "residual": r"\.convs\.\d+\.conv\.bias",
    "residual_encoder": r"\.(stem|conv1)\.conv\.bias|\.conv2\.bias",
    "separable": r"\.convs\.\d+\.conv\.(1\.)?bias",
    # Only 1x1 convolutions lie between these and a normalisation: they map constants to constants.
    "shuffle": r"\.convs\.5\.bias|\.upsamples\.\d+\.conv\.bias",
}
"""Parameters of each block that add a constant to a channel, which a normalisation subtracts with the mean."""
NOTHING = {torch.float64: 1e-10, torch.float32: 1e-5}
"""A gradient is 0 up to this share of the largest one. Measured in float64: 4e-14 and less for those of ``SUBTRACTED``,
2e-7 and more for all others; in float32, for the multimodal network alone: 7e-7 and 2e-4."""


def subtracted(spec: UNetSpec, network: nn.Module) -> set[str]:
    """Name the parameters of a network that change no output, since a normalisation subtracts what they add."""
    blocks = {spec.block, spec.decoder_block or spec.block} if spec.norm != "none" else set()
    patterns = [pattern for block in blocks if (pattern := SUBTRACTED[block])]
    return {name for name, _ in network.named_parameters() if any(re.search(f"({each})$", name) for each in patterns)}


def check_gradients(
    network: nn.Module,
    inputs: Collection[Tensor],
    without: Collection[str] = (),
    dtype: torch.dtype = torch.float64,
) -> None:
    """Assert that the gradients of all outputs reach every parameter but those of ``without``, which change no output.

    A copy of the network is run, in training mode.
    """
    network = copy.deepcopy(network).to(dtype).train()
    given = [each.to(dtype) if each.is_floating_point() else each for each in inputs]
    before = _outputs(network, given)
    torch.stack([output.square().mean() for output in before]).sum().backward()
    sizes = {
        name: torch.zeros((), dtype=dtype) if each.grad is None else each.grad.abs().max()
        for name, each in network.named_parameters()
    }
    largest = torch.stack(list(sizes.values())).max()  # NaN where any is
    assert largest.isfinite()
    assert {name for name, size in sizes.items() if size <= NOTHING[dtype] * largest} == set(without)
    with torch.no_grad():
        for name in without:
            network.get_parameter(name).add_(1.0)
    for after, output in zip(_outputs(network, given), before, strict=True):
        torch.testing.assert_close(after, output, rtol=1e-4, atol=1e-4)


def _outputs(network: nn.Module, inputs: Collection[Tensor]) -> list[Tensor]:
    outputs: Tensor | list[Tensor] = network(*inputs)
    return outputs if isinstance(outputs, list) else [outputs]
