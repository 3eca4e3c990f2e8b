"""Maps of gates and saliency: as large as the image, and where a known network looks."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from unet_models.networks.build import build_network
from unet_models.networks.inspection import ClassSaliency, GateMaps
from unet_models.networks.unet import UNet
from unet_models.sampling.sliding_window import predict_logits
from unet_models.specs.networks import UNetSpec
from unet_models.specs.segmentation import PredictSpec


def gated(**parts: object) -> UNet:
    torch.manual_seed(0)
    spec = UNetSpec.model_validate({"channels": (4, 6, 8), "skip": ("gated_coarse", "gated")} | parts)
    return build_network(spec, 1, 3, 2).eval()


def test_gate_maps_are_the_weights_that_the_skips_are_multiplied_by() -> None:
    network, images = gated(), torch.randn(2, 1, 12, 16)
    gates = GateMaps(network)
    assert gates.levels == (0, 1)
    skips: list[tuple[Tensor, Tensor]] = []
    hook = network.decoder.skips[1].gate.register_forward_hook(lambda _, given, out: skips.append((given[0], out)))
    maps = gates(images)
    hook.remove()
    assert maps.shape == (2, 2, 12, 16)
    assert ((maps > 0) & (maps < 1)).all()
    ((skip, weighted),) = skips
    torch.testing.assert_close(maps[:, :1] * skip, weighted)  # the gate of full resolution
    assert not network.decoder.skips[1].gate._forward_hooks


def test_networks_without_gates_have_no_maps() -> None:
    assert GateMaps(gated(skip="concat")).levels == ()
    assert GateMaps(gated(skip="none", decoder="fcn")).levels == ()


class Pyramid(nn.Module):
    """Two features: the image, and its mirror image."""

    def forward(self, images: Tensor) -> list[Tensor]:
        return [torch.cat([images, images.flip(-1)], dim=1)]


class Weighted(nn.Module):
    """Class 1 where the first feature is high; the second does not matter."""

    def forward(self, features: list[Tensor]) -> list[Tensor]:
        (x,) = features
        return [torch.cat([torch.ones_like(x[:, :1]), 3 * x[:, :1]], dim=1)]


def test_grad_cam_in_closed_form() -> None:
    """Score: the mean of 3x over 2 of 8 voxels; the mean gradient of the first feature is 3 / 8, of the second 0."""
    images = torch.tensor([[0.0, 2, 2, 0], [0, 0, -4, 0]])[None, None]
    network = UNet(Pyramid(), Weighted(), (1, 1))
    torch.testing.assert_close(ClassSaliency(network, 1)(images), 3 / 8 * images.clamp(min=0))


def test_a_region_is_predicted_where_its_logit_is_positive() -> None:
    """3 of 8 voxels; of exclusive classes the one of 0.2 goes to the other class."""
    images = torch.tensor([[0.0, 2, 2, 0], [0, 0, -4, 0.2]])[None, None]
    network = UNet(Pyramid(), Weighted(), (1, 1))
    saliency = ClassSaliency(network, 1, is_exclusive=False)(images)
    torch.testing.assert_close(saliency, 3 / 8 * images.clamp(min=0))
    assert (network.decoder(network.encode(images))[0][:, 0] == 1).all()  # the other one is everywhere
    assert ClassSaliency(network, 0, is_exclusive=True)(images).sum() == 0  # constant: no gradient


def test_a_class_that_is_not_predicted_has_no_saliency() -> None:
    assert not ClassSaliency(UNet(Pyramid(), Weighted(), (1, 1)), 1)(torch.zeros(1, 1, 2, 2)).any()


@pytest.mark.parametrize("decoder", ["unet", "nested", "fcn"])
def test_saliency_of_any_size_in_windows(decoder: str) -> None:
    """Inside the inference mode of the sliding window; odd sizes, each stage a map."""
    network = gated(decoder=decoder, skip="none" if decoder == "fcn" else "concat")
    logits = network(torch.ones(1, 1, 13, 9))
    predicted = int(logits.argmax(1).mode().values.flatten()[0])
    maps = predict_logits(ClassSaliency(network, predicted), torch.ones(1, 13, 9), (8, 8), PredictSpec(tta=False))
    assert maps.shape == (3, 13, 9)
    assert maps.isfinite().all()
    assert (maps >= 0).all()
    assert maps.max() > 0
    assert all(parameter.grad is None for parameter in network.parameters())
