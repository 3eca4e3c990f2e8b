"""Blocks beside independent ones of the same weights, in evaluation. (Whole networks: test_peers.py, tests/peers.)"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from monai.networks.blocks.convolutions import ResidualUnit
from torch import Tensor, nn
from transformers import MobileNetV2Config
from transformers.models.mobilenet_v2.modeling_mobilenet_v2 import MobileNetV2InvertedResidual

from tests.support.exports import perturbed
from tests.support.twins import CLOSE
from unet_models.networks.blocks import inverted_residual, residual, separable, shuffle
from unet_models.networks.layers import AVG_POOL, BATCH_NORM, CONV
from unet_models.specs.networks import UNetSpec

SIZE = (8, 6, 4)
SIZES = [(4, 4, 1), (4, 6, 1), (4, 6, 2)]
"""Input channels, output channels and stride."""


def assert_same(ours: nn.Module, theirs: nn.Module, x: Tensor) -> None:
    """Compare outputs; the twin is given the state of ours, whose tensors are in the same order."""
    state = perturbed(ours).state_dict()
    theirs.load_state_dict(dict(zip(theirs.state_dict(), state.values(), strict=True)))
    torch.testing.assert_close(ours(x), theirs.eval()(x), **CLOSE)


def images(channels: int, ndim: int) -> Tensor:
    return torch.randn(2, channels, *SIZE[:ndim])


@pytest.mark.parametrize("ndim", [2, 3])
@pytest.mark.parametrize(("in_channels", "out_channels", "stride"), SIZES[:2])
def test_residual_stage_is_that_of_monai(in_channels: int, out_channels: int, stride: int, ndim: int) -> None:
    """Strided, MONAI's shortcut is another one: 3x3. ResUNet pools."""
    spec = UNetSpec(preset="resunet").at_stage(0)
    ours = residual.Stage(spec, ndim, in_channels, out_channels, 2, stride)
    twin = ResidualUnit(ndim, in_channels, out_channels, stride, subunits=2, act="relu", norm="batch")
    assert_same(ours, twin, images(in_channels, ndim))


@pytest.mark.parametrize(("in_channels", "out_channels", "stride"), SIZES)
def test_inverted_residual_is_that_of_transformers(in_channels: int, out_channels: int, stride: int) -> None:
    spec = UNetSpec(preset="mobile_unet").at_stage(0)
    config = MobileNetV2Config(
        depth_divisible_by=1, min_depth=1, tf_padding=False, layer_norm_eps=1e-5, hidden_act="leaky_relu"
    )
    twin = MobileNetV2InvertedResidual(config, in_channels, out_channels, stride)
    assert_same(inverted_residual.Block(spec, 2, in_channels, out_channels, stride), twin, images(in_channels, 2))


class ShuffleUnit(nn.Module):
    """ShuffleNet's unit (Zhang 2018, figure 2 b) of torch's own layers, with the shortcut of ResNet-D."""

    def __init__(self, ndim: int, i: int, o: int, stride: int, groups: int) -> None:
        super().__init__()
        conv: Any = CONV[ndim]
        norm: Any = BATCH_NORM[ndim]
        hidden = o // 4
        self.convs = nn.Sequential(
            *(conv(i, hidden, 1, groups=groups, bias=False), norm(hidden), nn.ReLU(), nn.ChannelShuffle(groups)),
            *(conv(hidden, hidden, 3, stride, 1, groups=hidden, bias=False), norm(hidden)),
            *(conv(hidden, o, 1, groups=groups, bias=False), norm(o)),
        )
        projection = [conv(i, o, 1, bias=False), norm(o)] if i != o else []
        self.shortcut = nn.Sequential(AVG_POOL[ndim](stride), *projection)

    def forward(self, x: Tensor) -> Tensor:
        return (self.convs(x) + self.shortcut(x)).relu()


@pytest.mark.parametrize("ndim", [2, 3])
@pytest.mark.parametrize(("in_channels", "out_channels", "stride"), SIZES)
def test_shuffle_unit_is_that_of_torch_layers(in_channels: int, out_channels: int, stride: int, ndim: int) -> None:
    spec = UNetSpec(preset="shuffle_unet").at_stage(0)
    i, o = 8 * in_channels, 8 * out_channels  # 8 or 12 hidden channels: four groups divide them
    assert_same(shuffle.Block(spec, ndim, i, o, stride), ShuffleUnit(ndim, i, o, stride, 4), images(i, ndim))


@pytest.mark.parametrize("ndim", [2, 3])
@pytest.mark.parametrize("stride", [1, 2])
def test_separable_convolution_is_one_of_rank_one_kernels(stride: int, ndim: int) -> None:
    """Closed form: the kernel from one channel to another is the filter of the one, times a weight."""
    depthwise, pointwise = perturbed(separable.Stage.build_conv(UNetSpec(), ndim, 4, 6, stride))
    dense = CONV[ndim](4, 6, 3, stride, 1)
    dense.weight.data = pointwise.weight * depthwise.weight.transpose(0, 1)
    dense.bias.data = pointwise.bias
    x = images(4, ndim)
    torch.testing.assert_close(pointwise(depthwise(x)), dense(x), **CLOSE)
