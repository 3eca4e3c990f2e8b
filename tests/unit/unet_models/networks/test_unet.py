"""Segmentation U-Nets: any input size, any combination of parts. (The published ones: test_family.py.)"""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from data_pipelines.errors import ConfigError
from tests.support.counts import num_parameters
from unet_models.formats.trace import trace_unet
from unet_models.networks.build import build_network
from unet_models.networks.unet import UNet
from unet_models.specs.networks import UNetSpec

BLOCKS = ["inverted_residual", "mednext", "plain", "residual", "residual_encoder", "separable", "shuffle"]
NORMS = ["instance", "batch", "group", "none"]
SKIPS = ["concat", "add", "gated", "gated_coarse", "none"]
DOWNS, UPS = ["strided", "max_pool"], ["transposed", "linear"]


# --- Any size, any combination ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("ndim", [2, 3])
@pytest.mark.parametrize("block", BLOCKS)
def test_every_combination_keeps_the_shape_and_learns(block: str, ndim: int) -> None:
    sizes = itertools.cycle([(5, 7, 3), (1, 9, 2), (4, 4, 4), (1, 1, 1), (11, 6, 5)])
    norms, ups = itertools.cycle(NORMS), itertools.cycle(UPS)
    for skip, down, whole in zip(SKIPS * 2, DOWNS * 5, sizes, strict=False):  # 5 and 2: every pair of both
        parts: Any = {"norm": next(norms), "skip": skip, "downsample": down, "upsample": next(ups)}
        spec = UNetSpec(channels=(3, 4, 5), block=block, **parts)
        size = whole[:ndim]
        model = build_network(spec, 2, 3, ndim)
        images = torch.randn(2, 2, *size)
        logits = model(images)
        assert logits.shape == (2, 3, *size), spec
        logits.square().sum().backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters()), spec
        assert model.eval()(images[:1]).shape == (1, 3, *size), spec


stride = st.one_of(st.sampled_from([1, 2, 3]), st.tuples(*[st.integers(1, 3)] * 3))


@given(
    size=st.lists(st.integers(1, 19), min_size=2, max_size=3),
    strides=st.one_of(st.none(), st.tuples(stride, stride)),
    kind=st.tuples(*map(st.sampled_from, (BLOCKS, NORMS, SKIPS, DOWNS, UPS))),
    deep=st.integers(0, 1),
    batch=st.integers(1, 2),
)
@settings(max_examples=60, deadline=None)
def test_any_size_keeps_its_shape(size: list[int], strides: Any, kind: Any, deep: int, batch: int) -> None:
    ndim = len(size)
    if strides is not None:
        strides = tuple(s if isinstance(s, int) else s[:ndim] for s in strides)
    block, norm, skip, down, up = kind
    spec = UNetSpec(
        channels=(2, 3, 4),
        strides=strides,
        block=block,
        norm=norm,
        skip=skip,
        downsample=down,
        upsample=up,
        deep_supervision=deep,
    )
    model = build_network(spec, 1, 2, ndim)
    images = torch.randn(batch, 1, *size)
    logits = model.eval()(images)
    assert logits.shape == (batch, 2, *size)
    assert logits.isfinite().all()
    if deep:
        fine, coarse = model.train()(images)
        first = (strides or (2, 2))[0]
        per_axis = (first,) * ndim if isinstance(first, int) else first
        assert all(f >= n for f, n in zip(fine.shape[2:], size, strict=True))
        assert [f / s for f, s in zip(fine.shape[2:], per_axis, strict=True)] == list(coarse.shape[2:])


def test_each_node_of_the_nested_decoder_joins_those_before_it() -> None:
    """4 resolutions: 3 + 2 + 1 nodes; node (0, 3) joins (0, 0), (0, 1), (0, 2) and what comes from below."""
    model = build_network(UNetSpec(channels=(2, 3, 4, 5), decoder="nested", num_decoder_blocks=1), 1, 2, 2)
    inputs = [[node.stage.convs[0].conv.in_channels for node in column] for column in model.decoder.columns]
    assert inputs == [[2 * 2, 2 * 3, 2 * 4], [3 * 2, 3 * 3], [4 * 2]]


def test_skips_and_blocks_may_differ_by_stage() -> None:
    spec = UNetSpec(channels=(2, 3, 4), skip=("none", "add"), num_blocks=(1, 2, 3), decoder_block="residual")
    model = build_network(spec, 1, 2, 2)
    assert [len(stage.convs) for stage in model.encoder.stages] == [1, 2, 3]
    assert [skip.kind for skip in model.decoder.skips] == ["add", "none"]


def test_parts_of_the_caller() -> None:
    """A network of an encoder and a decoder that no spec names."""

    class Pyramid(nn.Module):
        def forward(self, images: Tensor) -> list[Tensor]:
            return [images, F.avg_pool2d(images, 2)]

    class Sum(nn.Module):
        def forward(self, features: list[Tensor]) -> list[Tensor]:
            fine, coarse = features
            return [fine + F.interpolate(coarse, scale_factor=2.0)]

    images = torch.ones(1, 1, 5, 6)
    assert torch.equal(UNet(Pyramid(), Sum(), (2, 2))(images[:, :, :4]), 2 * images[:, :, :4])


def test_deep_supervision_only_while_training() -> None:
    model = build_network(UNetSpec(channels=(2, 3, 4, 5), deep_supervision=2), 1, 3, 3)
    images = torch.randn(1, 1, 16, 8, 24)
    shapes = [tuple(output.shape) for output in model(images)]
    assert shapes == [(1, 3, 16, 8, 24), (1, 3, 8, 4, 12), (1, 3, 4, 2, 6)]
    logits = model.eval()(images)
    torch.testing.assert_close(logits, model.train()(images)[0])


def test_padding_is_zeros_at_the_far_end() -> None:
    model = build_network(UNetSpec(channels=(2, 3, 4)), 1, 2, 2).eval()
    images = torch.randn(2, 1, 9, 14)
    padded = model(F.pad(images, (0, 2, 0, 3)))  # 12 x 16
    torch.testing.assert_close(model(images), padded[:, :, :9, :14])


def test_light_blocks_are_light() -> None:
    plain, light = (num_parameters(build_network(UNetSpec(block=block), 1, 3)) for block in ("plain", "separable"))
    assert light < plain / 4


@pytest.mark.parametrize("channels", [(6, 10), (8, 12), (3, 32)])
def test_groups_divide_any_number_of_channels(channels: tuple[int, ...]) -> None:
    model = build_network(UNetSpec(channels=channels, norm="group"), 1, 2, 2)
    assert model(torch.randn(1, 1, 4, 4)).isfinite().all()


def test_dropout_only_while_training() -> None:
    model = build_network(UNetSpec(channels=(8, 8), dropout=0.5), 1, 2, 2)
    images = torch.randn(1, 1, 8, 8)
    assert not torch.equal(model(images), model(images))
    model.eval()
    assert torch.equal(model(images), model(images))


def test_he_initialisation() -> None:
    torch.manual_seed(0)
    model = build_network(UNetSpec(channels=(32, 64)), 1, 2, 3)
    conv = model.encoder.stages[1].convs[1].conv
    assert conv.weight.std().item() == pytest.approx((2 / (1 + 0.01**2) / (64 * 27)) ** 0.5, rel=0.02)
    assert (conv.bias == 0).all()


# --- Mistakes --------------------------------------------------------------------------------------------------------


def test_strides_must_fit_the_axes() -> None:
    with pytest.raises(ConfigError, match=r"strides: each entry needs 2 numbers.*got \[2, 2, 1\]"):
        build_network(UNetSpec(channels=(2, 3), strides=((2, 2, 1),)), 1, 2, ndim=2)


@pytest.mark.parametrize("ndim", [2, 3])
def test_a_label_map_is_spread_over_a_channel_for_each_class(ndim: int) -> None:
    spec = UNetSpec(channels=(2, 3))
    cascade, plain = build_network(spec, 2, 3, ndim, num_previous=4), build_network(spec, 6, 3, ndim)
    plain.load_state_dict(cascade.state_dict())
    images, labels = torch.rand(2, 2, *(8,) * ndim), torch.randint(5, (2, *(8,) * ndim))
    spread = F.one_hot(labels, 5).movedim(-1, 1)[:, 1:]
    with_labels = torch.cat([images, labels[:, None]], dim=1)
    torch.testing.assert_close(cascade(with_labels), plain(torch.cat([images, spread], dim=1)))
    program = trace_unet(cascade.eval(), 3, 3).program
    torch.testing.assert_close(program.module()(images=with_labels), cascade(with_labels))
