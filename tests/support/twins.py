"""Networks of others with the weights of ours."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from unet_models.networks.layers import InstanceNorm
from unet_models.networks.unet import UNet

CLOSE = {"rtol": 1e-5, "atol": 1e-5}


def perturbed(model: UNet) -> UNet:
    """Norms and output biases away from 1 and 0, so that forgetting one shows.

    Biases of convolutions stay 0: before a norm they have no effect, and the twins have none.
    """
    torch.manual_seed(1)
    for module in model.modules():
        if isinstance(module, (InstanceNorm, nn.GroupNorm)):
            nn.init.normal_(module.weight, 1.0, 0.2)
            nn.init.normal_(module.bias, 0.0, 0.2)
    for head in model.decoder.heads:  # type: ignore[union-attr]  # a module list
        nn.init.normal_(head.bias)
    return model.eval()


def in_order_of_use(model: nn.Module, images: Tensor, without: Iterable[nn.Module] = ()) -> Iterator[nn.Module]:
    """Modules that hold weights themselves, in the order of their calls, but those of ``without``."""
    order: list[nn.Module] = []
    left_out = {part for module in without for part in module.modules()}
    own = [module for module in model.modules() if module._parameters and module not in left_out]
    handles = [module.register_forward_pre_hook(lambda module, _: order.append(module)) for module in own]
    model(images)
    for handle in handles:
        handle.remove()
    assert len(set(order)) == len(order)
    return iter(order)


def copy_weights(ours: Iterable[nn.Module], theirs: Iterable[nn.Module]) -> None:
    """Copy weights and biases; a bias that only ours has must be 0."""
    for source, target in zip(ours, theirs, strict=True):
        assert isinstance(source.weight, Tensor)
        assert isinstance(target.weight, Tensor)
        target.weight.data = source.weight.data.reshape(target.weight.shape).clone()
        if target.bias is not None:
            target.bias.data = source.bias.data.clone()
        else:
            assert source.bias is None or not source.bias.any()


def swap_inputs(convs: Sequence[Any]) -> None:
    """Swap the halves of the input channels: the twins put the skip after the upsampled features."""
    for conv in convs:
        conv.weight.data = torch.cat(conv.weight.data.chunk(2, dim=1)[::-1], dim=1)
