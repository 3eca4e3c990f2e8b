"""The segmentation U-Net: published parameter counts, any input size, and the outputs of MONAI's of the same shape."""

from __future__ import annotations

import itertools
from typing import Any

import monai.networks.nets
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from data_pipelines.errors import ConfigError
from unet_models.networks import presets
from unet_models.networks.blocks import InstanceNorm
from unet_models.networks.unet import UNet
from unet_models.specs.networks import UNetSpec

BLOCKS, NORMS, SKIPS = (
    ["plain", "residual", "separable"],
    ["instance", "batch", "group", "none"],
    ["concat", "add", "gated"],
)
DOWNS, UPS = ["strided", "max_pool"], ["transposed", "linear"]


def num_parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


# --- Published shapes ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spec", "channels_in", "classes", "ndim", "count"),
    [(presets.unet_2015(), 1, 2, 2, 31_042_434), (presets.nnunet_hippocampus(), 1, 3, 3, 5_602_953)],
)
def test_number_of_parameters(spec: UNetSpec, channels_in: int, classes: int, ndim: int, count: int) -> None:
    with torch.device("meta"):
        assert num_parameters(UNet(spec, channels_in, classes, ndim)) == count


def monai_twin(model: UNet, in_channels: int, num_classes: int) -> nn.Module:
    """MONAI's DynUNet with the weights of ``model``. Its convolutions have no bias: before a norm it has no effect."""
    channels = model.spec.channels
    twin = monai.networks.nets.DynUNet(
        spatial_dims=model.ndim,
        in_channels=in_channels,
        out_channels=num_classes,
        kernel_size=[3] * len(channels),
        strides=[1, *model.strides],
        upsample_kernel_size=list(model.strides),
        filters=channels,
        norm_name=("instance", {"affine": True}),
        deep_supervision=model.spec.deep_supervision > 0,
        deep_supr_num=max(model.spec.deep_supervision, 1),
    )
    encoder = [twin.input_block, *twin.downsamples, twin.bottleneck]
    for ours, theirs in zip(model.encoder, encoder, strict=True):
        _copy_stage(ours, theirs)
    for upsample, ours, theirs in zip(model.upsamples, model.decoder, twin.upsamples, strict=True):
        theirs.transp_conv.conv.weight.data = upsample.conv.weight.data
        _copy_stage(ours, theirs.conv_block)
        skip, up = theirs.conv_block.conv1.conv.weight.data.chunk(2, dim=1)
        theirs.conv_block.conv1.conv.weight.data = torch.cat([up, skip], dim=1)  # MONAI puts the skip last
    heads = [twin.output_block, *twin.deep_supervision_heads] if model.spec.deep_supervision else [twin.output_block]
    for ours, theirs in zip(reversed(model.heads), heads, strict=True):
        theirs.conv.conv.load_state_dict(ours.state_dict())
    return twin


def _copy_stage(ours: nn.Module, theirs: nn.Module) -> None:
    for number, block in enumerate(ours.convs, start=1):
        getattr(theirs, f"conv{number}").conv.weight.data = block.conv.weight.data
        getattr(theirs, f"norm{number}").load_state_dict(block.norm.state_dict())


def perturbed(model: UNet) -> UNet:
    """Norms and biases away from 1 and 0, so that forgetting one shows; conv biases stay, as MONAI has none."""
    torch.manual_seed(1)
    for module in model.modules():
        if isinstance(module, InstanceNorm):
            nn.init.normal_(module.weight, 1.0, 0.2)
            nn.init.normal_(module.bias, 0.0, 0.2)
    for head in model.heads:
        nn.init.normal_(head.bias)
    return model


@pytest.mark.parametrize(("ndim", "strides", "size"), [(3, None, (16, 24, 8)), (2, ((2, 1), (2, 2), (1, 2)), (12, 20))])
def test_outputs_are_those_of_monai(ndim: int, strides: Any, size: tuple[int, ...]) -> None:
    spec = presets.nnunet_hippocampus().model_copy(update={"channels": (4, 6, 8, 10), "strides": strides})
    model = perturbed(UNet(spec, 2, 3, ndim))
    twin = monai_twin(model, 2, 3)
    images = torch.randn(2, 2, *size)
    torch.testing.assert_close(model.eval()(images), twin.eval()(images), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(model(images[:1]), twin(images[:1]), rtol=1e-4, atol=1e-4)
    outputs = model.train()(images)
    full = twin.train()(images)[:, 0]
    for ours, theirs in zip(outputs, [full, *twin.heads], strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


# --- Any size, any combination ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("ndim", [2, 3])
@pytest.mark.parametrize("block", BLOCKS)
def test_every_combination_keeps_the_shape_and_learns(block: str, ndim: int) -> None:
    sizes = itertools.cycle([(5, 7, 3), (1, 9, 2), (4, 4, 4), (1, 1, 1), (11, 6, 5)])
    for norm, skip, down, up in itertools.product(NORMS, SKIPS, DOWNS, UPS):
        spec = UNetSpec(channels=(3, 4, 5), block=block, norm=norm, skip=skip, downsample=down, upsample=up)
        size = next(sizes)[:ndim]
        model = UNet(spec, 2, 3, ndim)
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
    model = UNet(spec, 1, 2, ndim)
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


def test_deep_supervision_only_while_training() -> None:
    model = UNet(UNetSpec(channels=(2, 3, 4, 5), deep_supervision=2), 1, 3, 3)
    images = torch.randn(1, 1, 16, 8, 24)
    shapes = [tuple(output.shape) for output in model(images)]
    assert shapes == [(1, 3, 16, 8, 24), (1, 3, 8, 4, 12), (1, 3, 4, 2, 6)]
    logits = model.eval()(images)
    torch.testing.assert_close(logits, model.train()(images)[0])


def test_padding_is_zeros_at_the_far_end() -> None:
    model = UNet(UNetSpec(channels=(2, 3, 4)), 1, 2, 2).eval()
    images = torch.randn(2, 1, 9, 14)
    padded = model(F.pad(images, (0, 2, 0, 3)))  # 12 x 16
    torch.testing.assert_close(model(images), padded[:, :, :9, :14])


def test_light_blocks_are_light() -> None:
    plain, light = (num_parameters(UNet(UNetSpec(block=block), 1, 3)) for block in ("plain", "separable"))
    assert light < plain / 4


@pytest.mark.parametrize("channels", [(6, 10), (8, 12), (3, 32)])
def test_groups_divide_any_number_of_channels(channels: tuple[int, ...]) -> None:
    model = UNet(UNetSpec(channels=channels, norm="group"), 1, 2, 2)
    assert model(torch.randn(1, 1, 4, 4)).isfinite().all()


def test_dropout_only_while_training() -> None:
    model = UNet(UNetSpec(channels=(8, 8), dropout=0.5), 1, 2, 2)
    images = torch.randn(1, 1, 8, 8)
    assert not torch.equal(model(images), model(images))
    model.eval()
    assert torch.equal(model(images), model(images))


def test_he_initialisation() -> None:
    torch.manual_seed(0)
    model = UNet(UNetSpec(channels=(32, 64)), 1, 2, 3)
    conv = model.encoder[1].convs[1].conv
    assert conv.weight.std().item() == pytest.approx((2 / (1 + 0.01**2) / (64 * 27)) ** 0.5, rel=0.02)
    assert (conv.bias == 0).all()


# --- Mistakes --------------------------------------------------------------------------------------------------------


def test_strides_must_fit_the_axes() -> None:
    with pytest.raises(ConfigError, match=r"strides: each entry needs 2 numbers.*got \[2, 2, 1\]"):
        UNet(UNetSpec(channels=(2, 3), strides=((2, 2, 1),)), 1, 2, ndim=2)
