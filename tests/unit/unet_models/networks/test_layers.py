"""Layers of the segmentation networks: instance normalisation computes what torch's does."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unet_models.networks.layers import InstanceNorm


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
