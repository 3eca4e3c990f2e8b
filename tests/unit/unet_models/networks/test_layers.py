"""Layers of the segmentation networks: instance normalisation and strided 1x1 convolutions compute what torch's do."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unet_models.networks.layers import CONV, InstanceNorm, build_projection


def norm_and_gradients(norm: nn.Module | None, x: Tensor, weight: Tensor, bias: Tensor) -> list[Tensor]:
    """Output of ``norm``, or of torch's where None, and the gradients of a weighted sum of it."""
    x, weight, bias = (t.clone().requires_grad_() for t in (x, weight, bias))
    if norm is None:
        y = F.instance_norm(x, weight=weight, bias=bias, eps=1e-5)
    else:
        y = torch.func.functional_call(norm, {"weight": weight, "bias": bias}, x)
    mixing = torch.linspace(-1, 1, y.numel()).reshape(y.shape)
    return [y, *torch.autograd.grad((y * mixing).sum(), (x, weight, bias))]


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("ndim", [2, 3])
@pytest.mark.parametrize("training", [True, False])
def test_instance_norm_is_that_of_torch(batch: int, ndim: int, training: bool) -> None:
    torch.manual_seed(0)
    x = torch.randn(batch, 5, *(6, 7, 4)[:ndim]) * 3 + 2
    x = x.to(memory_format=torch.channels_last if ndim == 2 else torch.channels_last_3d)
    weight, bias = torch.randn(5), torch.randn(5)
    norm = InstanceNorm(5).train(training)
    got, want = (norm_and_gradients(n, x, weight, bias) for n in (norm, None))
    for ours, theirs in zip(got, want, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("in_channels", [1, 4, 6, 8, 12])
@pytest.mark.parametrize(("ndim", "stride"), [(2, 2), (2, (1, 2)), (3, (2, 2, 1))])
def test_strided_projection_is_the_convolution_of_torch(
    ndim: int, stride: int | tuple[int, ...], in_channels: int
) -> None:
    """In channels-last format, beside torch's in float64: in float32 torch's gradients are wrong on some CPUs."""
    torch.manual_seed(0)
    ours = build_projection(ndim, in_channels, 12, stride)
    theirs = CONV[ndim](in_channels, 12, 1, stride=stride).double()
    theirs.load_state_dict(ours.state_dict())
    ours = ours.to(memory_format=torch.channels_last if ndim == 2 else torch.channels_last_3d)
    for size in (8, 13):
        x = torch.randn(2, in_channels, *(size,) * ndim)
        x = x.to(memory_format=torch.channels_last if ndim == 2 else torch.channels_last_3d)
        expected = theirs(x.double())
        mixing = torch.randn_like(expected)
        torch.testing.assert_close(ours(x).double(), expected, rtol=1e-5, atol=1e-5)
        wanted = torch.autograd.grad((expected * mixing).sum(), list(theirs.parameters()))
        found = torch.autograd.grad((ours(x) * mixing.float()).sum(), list(ours.parameters()))
        for got, want in zip(found, wanted, strict=True):
            torch.testing.assert_close(got.double(), want, rtol=1e-4, atol=1e-4)
