"""Segmentation networks beside independent ones of the same weights: MONAI's. (nnU-Net's: tests/peers.)"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import monai.networks.nets
import pytest
import torch
from monai.networks.nets.attentionunet import AttentionBlock, AttentionLayer, ConvBlock, UpConv
from monai.networks.nets.flexible_unet import FLEXUNET_BACKBONE
from torch import Tensor, nn

from tests.support.twins import CLOSE, copy_weights, in_order_of_use, perturbed, swap_inputs
from unet_models.networks.blocks import plain
from unet_models.networks.build import build_network
from unet_models.networks.layers import INTERPOLATION
from unet_models.networks.parts import Parts
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


@pytest.mark.parametrize(("ndim", "size"), [(2, (32, 48)), (3, (16, 32, 16))])
def test_the_network_with_max_pooling_is_that_of_monai(ndim: int, size: tuple[int, ...]) -> None:
    """MONAI's ``BasicUNet``, whose last upsampling keeps its channels: the first two stages have as many."""
    spec = UNetSpec(channels=(4, 4, 8, 16, 32), downsample="max_pool")
    model = perturbed(build_network(spec, 2, 3, ndim))
    twin = monai.networks.nets.BasicUNet(
        ndim, 2, 3, features=(*spec.channels, 4), act=("leakyrelu", {"negative_slope": 0.01})
    ).eval()
    images = torch.randn(2, 2, *size)
    copy_weights(in_order_of_use(model, images), in_order_of_use(twin, images))
    assert_same(model, twin, images)


@pytest.mark.parametrize(("ndim", "size"), [(2, (16, 24)), (3, (8, 16, 12))])
def test_the_attention_network_is_that_of_monai(ndim: int, size: tuple[int, ...]) -> None:
    """MONAI's ``AttentionUnet``: its upsampling is given as a part; its gates' normalisations, in our convolutions."""
    spec = UNetSpec(
        channels=(4, 8, 16), norm="batch", activation="relu", num_decoder_blocks=1, skip="gated", deep_supervision=0
    )
    decoder_spec = UNetSpec(channels=spec.channels)  # instance normalisation and a leaky ReLU

    class Upsample(UpConv):
        def __init__(self, spec: UNetSpec, ndim: int, in_channels: int, out_channels: int, stride: Any) -> None:
            super().__init__(ndim, in_channels, out_channels, strides=stride)

    block = SimpleNamespace(Stage=lambda _, *sizes: plain.Stage(decoder_spec, *sizes), Upsample=Upsample)
    model: Any = build_network(spec, 2, 3, ndim, Parts.of(spec, decoder_block=block))
    twin: Any = monai.networks.nets.AttentionUnet(ndim, 2, 3, spec.channels, (2, 2))
    randomise(twin)
    layers = [module for module in twin.modules() if isinstance(module, AttentionLayer)]
    for stage, theirs in zip(
        model.encoder.stages, [module for module in twin.modules() if isinstance(module, ConvBlock)], strict=True
    ):
        for own, other in zip(stage.convs, theirs.conv, strict=True):
            own.conv.load_state_dict(other.conv.state_dict())
            own.norm.load_state_dict(other.adn.N.state_dict())
    parts = model.decoder.upsamples, model.decoder.skips, model.decoder.stages
    for upsample, skip, stage, layer in zip(*(list(part)[::-1] for part in parts), layers, strict=True):
        upsample.load_state_dict(layer.upconv.state_dict())
        gate, attention = skip.gate, layer.attention
        gate.project_gate.weight.data, shift = folded(*attention.W_g)
        gate.project_skip.weight.data, other_shift = folded(*attention.W_x)
        gate.project_gate.bias.data = shift + other_shift
        gate.attention.weight.data, gate.attention.bias.data = folded(*attention.psi[:2])
        stage.convs[0].conv.load_state_dict(layer.merge.conv.state_dict())
        layer.merge.adn.A.weight.data.fill_(0.01)
    model.decoder.heads[0].load_state_dict(twin.model[2].conv.state_dict())
    assert_same(model.eval(), twin.eval(), torch.randn(2, 2, *size))


@pytest.mark.parametrize(("ndim", "size"), [(2, (16, 24)), (3, (8, 16, 16))])
def test_the_network_around_any_encoder_is_that_of_monai(
    ndim: int, size: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """MONAI's ``FlexibleUNet`` with our encoder: it has no skip at full resolution, and a head of 3 voxels."""
    channels = (8, 8, 16, 32)
    skips = ("none", "concat", "concat")
    spec = UNetSpec(channels=channels, norm="batch", activation="relu", upsample="linear", skip=skips)
    model: Any = build_network(spec, 2, 3, ndim)
    randomise(model)

    class Backbone(nn.Module):
        def __init__(self, **_: Any) -> None:
            super().__init__()

        def forward(self, images: Tensor) -> list[Tensor]:
            features: list[Tensor] = model.encoder(images)[1:]
            return features

    parameters = {"spatial_dims": ndim, "in_channels": 2, "pretrained": False}
    entry = {"type": Backbone, "feature_number": 3, "feature_channel": channels[1:], "parameter": parameters}
    monkeypatch.setitem(FLEXUNET_BACKBONE.register_dict, "ours", entry)
    twin: Any = monai.networks.nets.FlexibleUNet(
        2,
        3,
        "ours",
        decoder_channels=(16, 8, 8),
        spatial_dims=ndim,
        norm="batch",
        decoder_bias=True,
        interp_mode=INTERPOLATION[ndim],
    )
    images = torch.randn(2, 2, *size)
    last = next(
        module for module in model.decoder.upsamples[-1].modules() if isinstance(module, (nn.Conv2d, nn.Conv3d))
    )
    nn.init.dirac_(last.weight)  # theirs upsamples as many channels as they are
    nn.init.zeros_(last.bias)
    head, ours = twin.segmentation_head[0], model.decoder.heads[0]
    shared = (model.encoder, last, ours)
    for own, other in zip(
        in_order_of_use(model.eval(), images, shared),
        in_order_of_use(twin.eval(), images, (model.encoder, head)),
        strict=True,
    ):
        other.load_state_dict(own.state_dict())
    nn.init.zeros_(head.weight)
    head.weight.data[(..., *(1,) * ndim)] = ours.weight.data.flatten(1)
    head.bias.data = ours.bias.data
    assert_same(model, twin, images)


def randomise(model: nn.Module) -> None:
    """Draw all parameters, and the statistics of batch normalisations."""
    torch.manual_seed(2)
    for module in model.modules():
        if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0.0, 0.2)
            nn.init.normal_(module.running_mean, 0.0, 0.2)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
        elif isinstance(getattr(module, "bias", None), Tensor):
            nn.init.normal_(module.bias, 0.0, 0.2)


def folded(convolution: Any, norm: Any) -> tuple[Tensor, Tensor]:
    """Weight and bias of a convolution that computes what it and its batch normalisation do in evaluation."""
    scale = norm.weight / (norm.running_var + norm.eps).sqrt()
    weight = convolution.conv.weight * scale.view(-1, *(1,) * (convolution.conv.weight.ndim - 1))
    return weight.detach(), (norm.bias + scale * (convolution.conv.bias - norm.running_mean)).detach()


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
    # In float64: with AVX-512 one of 9,216 values is 1.2e-5 off in float32.
    assert_same(model.double(), twin.double(), images.double())


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
