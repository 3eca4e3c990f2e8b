"""Segmentation networks beside independent ones of the same weights: MONAI's. (nnU-Net's: tests/peers.)"""

from __future__ import annotations

from typing import Any

import monai.networks.nets
import pytest
import torch
from monai.networks.nets.attentionunet import AttentionBlock
from torch import Tensor, nn

from tests.support.twins import CLOSE, copy_weights, in_order_of_use, perturbed, swap_inputs
from unet_models.networks.build import build_network
from unet_models.networks.skips import AttentionGate
from unet_models.networks.unet import UNet
from unet_models.specs.networks import UNetSpec


def assert_same(ours: UNet, theirs: nn.Module, images: Tensor) -> None:
    torch.testing.assert_close(ours(images), theirs(images), **CLOSE)
    torch.testing.assert_close(ours(images[:1]), theirs(images[:1]), **CLOSE)


def plain_twin(model: UNet, spec: UNetSpec, strides: Any, images: Tensor) -> Any:
    """MONAI's DynUNet of the same weights."""
    channels = spec.channels
    twin = monai.networks.nets.DynUNet(
        spatial_dims=model.ndim,
        in_channels=images.shape[1],
        out_channels=3,
        kernel_size=[spec.at_stage(i).kernel_size for i in range(len(channels))],
        strides=[1, *strides],
        upsample_kernel_size=list(strides),
        filters=channels,
        norm_name=("instance", {"affine": True}),
        deep_supervision=True,
        deep_supr_num=spec.deep_supervision,
    )
    outputs = [twin.output_block, *twin.deep_supervision_heads]
    heads = list(model.decoder.heads)[::-1]  # type: ignore[arg-type]  # a module list
    copy_weights(in_order_of_use(model, images, heads), in_order_of_use(twin, images, outputs))
    copy_weights(heads, [output.conv.conv for output in outputs])
    swap_inputs([block.conv_block.conv1.conv for block in twin.upsamples])
    return twin


@pytest.mark.parametrize(
    ("ndim", "strides", "kernels", "size"),
    [
        (3, (2, 2, 2), 3, (16, 24, 8)),
        (2, ((2, 1), (2, 2), (1, 2)), 3, (12, 20)),
        (3, ((2, 2, 1), (2, 2, 2), (2, 2, 2)), ((3, 3, 1),) * 4, (16, 24, 8)),  # its decoder shares no stage's kernel
    ],
)
def test_the_plain_network_is_that_of_monai(ndim: int, strides: Any, kernels: Any, size: tuple[int, ...]) -> None:
    own = {"channels": (4, 6, 8, 10), "strides": strides, "kernel_size": kernels}
    spec = UNetSpec(preset="nnunet").model_copy(update=own)
    model = perturbed(build_network(spec, 2, 3, ndim))
    images = torch.randn(2, 2, *size)
    twin = plain_twin(model, spec, strides, images)
    assert_same(model.eval(), twin.eval(), images)
    full = twin.train()(images)[:, 0]
    for ours, theirs in zip(model.train()(images), [full, *twin.heads], strict=True):
        torch.testing.assert_close(ours, theirs, **CLOSE)


@pytest.mark.parametrize(("ndim", "size"), [(2, (16, 24)), (3, (8, 16, 12))])
def test_mednext_is_that_of_monai(ndim: int, size: tuple[int, ...]) -> None:
    spec = UNetSpec(preset="mednext_s").model_copy(
        update={"channels": (4, 8, 16), "expansion": 3, "kernel_size": 5, "deep_supervision": 0}
    )
    model = perturbed(build_network(spec, 2, 3, ndim))
    twin = monai.networks.nets.MedNeXt(
        spatial_dims=ndim,
        init_filters=4,
        in_channels=2,
        out_channels=3,
        encoder_expansion_ratio=3,
        decoder_expansion_ratio=3,
        bottleneck_expansion_ratio=3,
        kernel_size=5,
        use_residual_connection=True,
        blocks_down=(2, 2),
        blocks_up=(2, 2),
    ).eval()
    images = torch.randn(2, 2, *size)
    ours, theirs = (list(in_order_of_use(network, images)) for network in (model, twin))
    copy_weights(ours[:-1], theirs[:-1])
    twin.out_0.conv_out.weight.data = ours[-1].weight.data.transpose(0, 1)  # type: ignore[union-attr,operator]
    twin.out_0.conv_out.bias.data = ours[-1].bias.data  # type: ignore[union-attr,assignment]
    assert_same(model, twin, images)


@pytest.mark.parametrize("ndim", [2, 3])
def test_the_attention_gate_is_that_of_monai(ndim: int) -> None:
    gate, twin = AttentionGate(ndim, 8, 8, (1,) * ndim), AttentionBlock(ndim, f_int=4, f_g=8, f_l=8).eval()
    skip, coarse = torch.randn(2, 8, *(6, 5, 4)[:ndim]), torch.randn(2, 8, *(6, 5, 4)[:ndim])
    for ours, theirs in [(gate.project_gate, twin.W_g), (gate.project_skip, twin.W_x), (gate.attention, twin.psi)]:
        theirs[0].conv.weight.data = ours.weight.data
        theirs[0].conv.bias.data.zero_() if ours.bias is None else theirs[0].conv.bias.data.copy_(ours.bias.data)
    torch.testing.assert_close(gate(skip, coarse), twin(coarse, skip), **CLOSE)


def test_the_gate_of_a_coarser_grid_weights_the_fine_one() -> None:
    """Closed form: a gate that sees one bright corner opens there, linearly interpolated."""
    gate = AttentionGate(2, 1, 1, (2, 2))
    for parameter in gate.parameters():
        nn.init.ones_(parameter)
    coarse = torch.zeros(1, 1, 2, 2)
    coarse[..., 0, 0] = 3.0
    weights = gate.weights(torch.zeros(1, 1, 4, 4), coarse)
    low, high = torch.sigmoid(torch.tensor([2.0, 5.0]))  # relu(0 + gate + 1) + 1
    between = [0.75 * high + 0.25 * low, 0.25 * high + 0.75 * low]
    torch.testing.assert_close(weights[0, 0, 0], torch.stack([high, *between, low]))
