"""Untrained networks restore as the baseline does; tiles give what the whole gives, for every kind of network."""

from __future__ import annotations

import pytest
import torch

from data_pipelines.errors import ConfigError
from unet_models.restoration import tiles
from unet_models.restoration.build import build_task
from unet_models.restoration.held_out import degrade_held_out
from unet_models.restoration.restorer import Restorer, TrainableRestorer
from unet_models.restoration.tiles import find_reach, restore_in_tiles
from unet_models.specs.networks import UNetSpec
from unet_models.specs.restoration import (
    ColourisationSpec,
    DenoisingSpec,
    InpaintingSpec,
    SuperResolutionSpec,
    TaskSpec,
)

SMALL = UNetSpec(channels=(4, 8), norm="none", num_blocks=1, num_decoder_blocks=1)
TASKS: list[TaskSpec] = [DenoisingSpec(), SuperResolutionSpec(), InpaintingSpec(), ColourisationSpec()]
MODELS = {
    "plain": SMALL,
    "batch norm, pooling, linear": SMALL.model_copy(
        update={"norm": "batch", "downsample": "max_pool", "upsample": "linear"}
    ),
    "gated, three stages": SMALL.model_copy(
        update={"channels": (4, 4, 8), "skip": "gated_coarse", "activation": "relu"}
    ),
    "residual": SMALL.model_copy(update={"block": "residual"}),
    "mednext": SMALL.model_copy(update={"block": "mednext", "skip": "add", "activation": "gelu"}),
    **{
        block: SMALL.model_copy(update={"block": block})
        for block in ("residual_encoder", "separable", "inverted_residual", "shuffle")
    },
    "nested": SMALL.model_copy(update={"decoder": "nested", "channels": (4, 4, 8)}),
    "stride 3": SMALL.model_copy(update={"strides": (3,)}),
    "fcn": SMALL.model_copy(update={"decoder": "fcn", "skip": "add", "channels": (4, 8, 8)}),
}


def restorer_of(task: TaskSpec, model: UNetSpec = SMALL, *, is_trained: bool = True) -> Restorer:
    """A network whose every weight counts, also that of running means and of the last convolution."""
    torch.manual_seed(0)
    restorer = Restorer.build(model, build_task(task)).eval()
    if is_trained:
        for tensor in restorer.state_dict().values():
            if tensor.is_floating_point():
                tensor.add_(0.05 * torch.rand_like(tensor))
    return restorer


@pytest.mark.parametrize("spec", TASKS, ids=lambda spec: spec.name)
def test_untrained_network_is_the_baseline(spec: TaskSpec) -> None:
    restorer = restorer_of(spec, is_trained=False)
    image = torch.rand(1, 3, 20, 24, generator=torch.Generator().manual_seed(1))
    sample = degrade_held_out(restorer.task, image, "a", seed=0)
    with torch.no_grad():
        restored = restorer(sample.inputs)
    if spec.name == "inpainting":  # from grey, not from the mean, which tiles would not know
        known = (sample.inputs[:, 3:] == 0).expand_as(restored)
        assert torch.equal(restored[known], image[known])
    else:
        torch.testing.assert_close(restored, restorer.task.baseline(sample.inputs).clamp(0, 1), rtol=0, atol=1e-6)


@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS.keys())
def test_tiles_are_exact(model: UNetSpec) -> None:
    restorer = restorer_of(DenoisingSpec(), model)
    inputs = torch.rand(3, 61, 83, generator=torch.Generator().manual_seed(2))
    whole = restore_in_tiles(restorer, inputs, None)
    torch.testing.assert_close(restore_in_tiles(restorer, inputs, 16), whole, rtol=0, atol=1e-5)
    assert 0 < find_reach(restorer) < 61, "the tile in the middle does not see the whole image"


@pytest.mark.parametrize("spec", TASKS[1:], ids=lambda spec: spec.name)
def test_tiles_are_exact_for_every_task(spec: TaskSpec) -> None:
    restorer = restorer_of(spec)
    inputs = torch.rand(restorer.task.in_channels, 45, 38, generator=torch.Generator().manual_seed(3))
    inputs[3:] = inputs[3:].round()
    whole = restore_in_tiles(restorer, inputs, None)
    assert whole.shape == (3, 45 * restorer.task.factor, 38 * restorer.task.factor)
    torch.testing.assert_close(restore_in_tiles(restorer, inputs, 16), whole, rtol=0, atol=1e-5)


def test_tiles_without_their_surroundings_would_show(monkeypatch: pytest.MonkeyPatch) -> None:
    restorer = restorer_of(DenoisingSpec())
    inputs = torch.rand(3, 40, 40, generator=torch.Generator().manual_seed(4))
    whole = restore_in_tiles(restorer, inputs, None)
    restorer.reach = find_reach(restorer) - 4
    assert float((restore_in_tiles(restorer, inputs, 16) - whole).abs().max()) > 1e-4


def test_the_reach_is_measured_once(monkeypatch: pytest.MonkeyPatch) -> None:
    restorer, measured = restorer_of(DenoisingSpec()), []
    monkeypatch.setattr(tiles, "find_reach", lambda each: measured.append(each) or 8)
    for _ in range(2):
        restore_in_tiles(restorer, torch.rand(3, 40, 40), 16)
    assert measured == [restorer]
    assert restorer.reach == 8


def test_the_network_alone_is_rounded_to_bf16() -> None:
    """An untrained network adds nothing, and the bicubic enlargement it adds to keeps float32."""
    restorer = restorer_of(SuperResolutionSpec(), is_trained=False)
    inputs = torch.rand(3, 20, 20, generator=torch.Generator().manual_seed(5))
    exact = restore_in_tiles(restorer, inputs, None)
    for tile in (None, 16):
        torch.testing.assert_close(restore_in_tiles(restorer, inputs, tile, "bf16"), exact, rtol=0, atol=1e-6)


def test_normalisation_over_the_image_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiles, "MAX_SIDE", 64)
    restorer = restorer_of(DenoisingSpec(), SMALL.model_copy(update={"norm": "instance"}))
    with pytest.raises(ConfigError, match=r"more than 32 pixels to each side, .*; set evaluate\.tile to null"):
        restore_in_tiles(restorer, torch.rand(3, 40, 40), 16)


def test_held_out_degradation_depends_on_key_and_seed_alone() -> None:
    task, image = build_task(DenoisingSpec()), torch.rand(1, 3, 16, 16)
    first = degrade_held_out(task, image, "a", 0).inputs
    assert torch.equal(first, degrade_held_out(task, image, "a", 0).inputs)
    assert not torch.equal(first, degrade_held_out(task, image, "b", 0).inputs)
    assert not torch.equal(first, degrade_held_out(task, image, "a", 1).inputs)


def test_discriminator_and_restorer_have_gradients_of_their_own() -> None:
    model = TrainableRestorer(restorer_of(SuperResolutionSpec()), is_adversarial=True)
    inputs, images = torch.rand(2, 3, 16, 16), torch.rand(2, 3, 32, 32)
    output, fooled, real, fake = model(inputs, images)
    assert output.shape == (2, 12, 16, 16)
    fooled.sum().backward(retain_graph=True)
    assert model.discriminator is not None
    assert all(parameter.grad is None for parameter in model.discriminator.parameters())
    assert any(parameter.grad is not None for parameter in model.restorer.parameters())
    model.zero_grad()
    (real.sum() + fake.sum()).backward()
    assert all(parameter.grad is None or not parameter.grad.any() for parameter in model.restorer.parameters())
    assert all(parameter.grad is not None for parameter in model.discriminator.parameters())
