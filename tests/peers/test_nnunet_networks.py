"""Residual encoder beside nnU-Net's own, of the same weights (`make test-peers`)."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from tests.support.twins import CLOSE, copy_weights, perturbed, swap_inputs
from unet_models.networks.build import build_network
from unet_models.specs.networks import UNetSpec

nnunet = pytest.importorskip("dynamic_network_architectures.architectures.unet")


@pytest.mark.parametrize(
    ("ndim", "size", "kernels"), [(2, (16, 24), 3), (3, (8, 16, 12), 3), (3, (8, 16, 12), ((1, 3, 3), 3, 5))]
)
def test_the_residual_encoder_is_that_of_nnunet(ndim: int, size: tuple[int, ...], kernels: Any) -> None:
    update = {
        "kernel_size": kernels,
        "channels": (4, 8, 12),
        "num_blocks": (1, 3, 4),
        "deep_supervision": 1,
        "strides": (2, (2,) * ndim),
    }
    spec = UNetSpec(preset="residual_encoder").model_copy(update=update)
    model = perturbed(build_network(spec, 2, 3, ndim))
    twin = nnunet.ResidualEncoderUNet(
        2,
        3,
        [4, 8, 12],
        {2: nn.Conv2d, 3: nn.Conv3d}[ndim],
        [spec.at_stage(i).kernel_size for i in range(3)],
        [1, 2, 2],
        [1, 3, 4],
        3,
        [1, 1],
        conv_bias=True,
        norm_op={2: nn.InstanceNorm2d, 3: nn.InstanceNorm3d}[ndim],
        norm_op_kwargs={"eps": 1e-5, "affine": True},
        nonlin=nn.LeakyReLU,
        deep_supervision=True,
    )
    images = torch.randn(2, 2, *size)
    _copy_blocks(model, twin)
    swap_inputs([stage.convs[0].conv for stage in twin.decoder.stages])
    for ours, theirs in zip(model.train()(images), twin.train()(images), strict=True):
        torch.testing.assert_close(ours, theirs, **CLOSE)
    torch.testing.assert_close(model.eval()(images), twin.eval()(images)[0], **CLOSE)


def _copy_blocks(model: Any, twin: Any) -> None:
    """Copy piece by piece: the twin's modules share their layers, and its shortcut comes first."""
    pairs = [(model.encoder.stem, twin.encoder.stem.convs[0])]
    for ours, theirs in zip(model.encoder.stages, twin.encoder.stages, strict=True):
        for one, other in zip(ours, theirs.blocks, strict=True):
            pairs.append((one.conv1, other.conv1))
            copy_weights([one.conv2, one.norm2], [other.conv2.conv, other.conv2.norm])
            projections = [module for module in one.shortcut if module._parameters]
            if projections:
                copy_weights(projections, [other.skip[-1].conv, other.skip[-1].norm])
    pairs += [
        (ours.convs[0], theirs.convs[0]) for ours, theirs in zip(model.decoder.stages, twin.decoder.stages, strict=True)
    ]
    for one, other in pairs:
        copy_weights([one.conv, one.norm], [other.conv, other.norm])
    upsamples = [upsample.conv for upsample in model.decoder.upsamples]
    copy_weights(upsamples, twin.decoder.transpconvs)
    copy_weights(model.decoder.heads, list(twin.decoder.seg_layers)[-len(model.decoder.heads) :])
