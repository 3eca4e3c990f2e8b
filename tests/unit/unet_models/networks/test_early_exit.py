"""Early exits: bit-identical where nothing leaves; what leaves is the coarse head's; what is settled stays."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.support.exports import perturbed
from unet_models.networks.build import build_network
from unet_models.networks.early_exit import EarlyExit
from unet_models.networks.unet import UNet
from unet_models.sampling.sliding_window import predict_logits
from unet_models.specs.networks import FusionSpec, UNetSpec
from unet_models.specs.segmentation import PredictSpec


def network(ndim: int = 2, deep_supervision: int = 2) -> UNet:
    spec = UNetSpec(channels=(4, 6, 8, 10), deep_supervision=deep_supervision)
    built: UNet = perturbed(build_network(spec, 1, 3, ndim))
    return built.eval()


def head_of(unet: UNet, number: int) -> nn.Module:
    """Head ``number`` from the coarsest."""
    return unet.decoder.heads[number]  # type: ignore[union-attr,index,return-value]


def outputs_of(unet: UNet, images: Tensor) -> list[Tensor]:
    """Logits of every head, finest first, with the padding."""
    outputs = unet.train()(images)
    unet.eval()
    assert isinstance(outputs, list)
    return outputs


@torch.no_grad()
@pytest.mark.parametrize("size", [(16, 24), (9, 13), (8, 17, 9)])
def test_a_threshold_of_one_changes_no_bit(size: tuple[int, ...]) -> None:
    unet, images = network(len(size)), torch.randn(3, 1, *size)
    for head in unet.decoder.heads:  # type: ignore[union-attr]  # a module list
        head.weight.mul_(1e4)  # type: ignore[operator,union-attr]
    assert outputs_of(unet, images)[2].softmax(1).amax() == 1  # in float32
    exits = EarlyExit(unet, 1.0)
    assert torch.equal(exits(images), unet(images))
    assert exits.num_left == [0, 0, 3]


@torch.no_grad()
def test_further_inputs_are_passed_on() -> None:
    fusion = FusionSpec(text_bytes=8, sound_seconds=0, width=8, num_heads=2)
    unet = perturbed(build_network(UNetSpec(channels=(4, 6, 8), deep_supervision=1, fusion=fusion), 1, 3, 2))
    images, texts = torch.randn(2, 1, 8, 8), torch.randint(1, 255, (2, 8), dtype=torch.uint8)
    logits = EarlyExit(unet, 1.0)(images, texts)
    assert torch.equal(logits, unet(images, texts))
    assert not torch.equal(logits, unet(images))


@torch.no_grad()
def test_images_that_are_settled_everywhere_take_the_coarsest_head() -> None:
    """Two of three images get a sure coarse head; the order of the images is kept."""
    unet = network()
    images = torch.randn(3, 1, 16, 24)
    coarse = outputs_of(unet, images)[2]
    sure = coarse.softmax(1).amax(1).flatten(1).amin(1)  # the least sure voxel of each image
    order = sure.argsort()
    threshold = float((sure[order[0]] + sure[order[1]]) / 2)
    exits, plain = EarlyExit(unet, threshold), unet(images)
    logits = exits(images)
    assert exits.num_left[0] == 2
    expected = F.interpolate(coarse, size=(16, 24), mode="bilinear", align_corners=False)
    for image in order[1:].tolist():
        torch.testing.assert_close(logits[image], expected[image])
    assert not torch.allclose(plain, expected, atol=1e-2)


@torch.no_grad()
def test_settled_voxels_keep_the_coarse_logits_and_the_others_get_finer_ones() -> None:
    """Also over a head in between, whatever that one is confident of."""
    unet, images = network(), torch.randn(1, 1, 16, 16)
    fine, middle, coarse = outputs_of(unet, images)
    threshold = float(coarse.softmax(1).amax(1).median())

    def confident(logits: Tensor) -> Tensor:
        return logits.softmax(1).amax(1, keepdim=True) > threshold

    def doubled(logits: Tensor) -> Tensor:
        return F.interpolate(logits, scale_factor=2.0, mode="bilinear", align_corners=False)

    settled = confident(coarse).repeat_interleave(2, 2).repeat_interleave(2, 3)
    assert 0 < settled.float().mean() < 1
    joined = torch.where(settled, doubled(coarse), middle)
    assert not confident(joined)[settled].all(), "interpolated, some are not confident any more"
    settled = (settled | confident(joined)).repeat_interleave(2, 2).repeat_interleave(2, 3)
    torch.testing.assert_close(EarlyExit(unet, threshold)(images), torch.where(settled, doubled(joined), fine))


@torch.no_grad()
def test_regions_are_settled_where_the_least_certain_is() -> None:
    unet, images = network(), torch.randn(3, 1, 16, 24)
    coarse = outputs_of(unet, images)[2]
    probabilities = coarse.sigmoid()
    certain = torch.maximum(probabilities, 1 - probabilities).amin(1)  # of the least certain region
    sure = certain.flatten(1).amin(1)
    threshold = float(sure.sort().values[:2].mean())
    exits = EarlyExit(unet, threshold, is_exclusive=False)
    exits(images)
    assert exits.num_left[0] == 2


@torch.no_grad()
def test_finer_stages_do_not_run_for_what_has_left() -> None:
    unet = network()
    nn.init.constant_(head_of(unet, 0).bias, 0.0)
    head_of(unet, 0).bias[1] = 1e4
    sizes: list[int] = []
    unet.decoder.stages[1].register_forward_pre_hook(lambda _, given: sizes.append(len(given[0])))
    logits = predict_logits(EarlyExit(unet, 0.9), torch.randn(1, 9, 20), (8, 8), PredictSpec(), mirror_axes=(0, 1))
    assert (logits.argmax(0) == 1).all()
    assert sizes == []


def test_networks_without_coarser_heads_are_refused() -> None:
    with pytest.raises(ValueError, match="need decoder unet and deep supervision"):
        EarlyExit(network(deep_supervision=0), 0.9)
