"""The image autoencoder: it learns, each side from its own loss, and loads from a folder that holds one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from data_pipelines.errors import WeightsError
from tests.support.encoders import AUTOENCODER, image_batch
from unet_models.networks.autoencoder import (
    TrainableAutoencoder,
    build_autoencoder,
    downsampling_factor,
    images_at_once,
    load_autoencoder,
)
from unet_models.sampling.pixels import scale_images
from unet_models.training.objectives import Reconstruction


@pytest.mark.parametrize(
    ("sides", "most", "expected"),
    [((64, 64), 32, 32), ((512, 512), 32, 4), ((512, 512), 2, 2), ((768, 1024), 8, 1), ((4096, 4096), 8, 1)],
)
def test_large_images_are_decoded_a_few_at_a_time(sides: tuple[int, int], most: int, expected: int) -> None:
    assert images_at_once(*sides, most) == expected


def test_each_level_but_the_last_halves_the_sides() -> None:
    autoencoder = build_autoencoder(AUTOENCODER, 16)
    side = autoencoder.encode(torch.zeros(1, 3, 16, 16)).latent_dist.mean.shape[-1]
    assert downsampling_factor(autoencoder.config) == 16 // side == 2
    assert downsampling_factor({"block_out_channels": [8, 8, 8, 8]}) == 8
    assert downsampling_factor({}) == 1, "the default of diffusers"


def test_autoencoder_learns_and_keeps_sizes() -> None:
    torch.manual_seed(0)
    spec = AUTOENCODER.model_copy(update={"kl_weight": 0.0})
    model = TrainableAutoencoder.from_spec(spec, 16)
    reconstructed, moments = model(scale_images(image_batch().images), torch.zeros(2, 4, 8, 8))
    assert reconstructed.shape == (2, 3, 16, 16)
    assert moments.shape == (2, 8, 8, 8)
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    losses = []
    for _ in range(15):
        loss = Reconstruction(spec)(model, image_batch()).sum()
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses[-1] < 0.7 * losses[0]


def test_each_side_learns_from_its_own_loss_alone() -> None:
    torch.manual_seed(0)
    spec = AUTOENCODER.model_copy(update={"adversarial_weight": 0.5})
    model = TrainableAutoencoder.from_spec(spec, 16)
    images, noise = scale_images(image_batch().images), torch.randn(2, 4, 8, 8)
    restored, _, fooled, real, fake = model(images, noise)
    torch.testing.assert_close(fooled, fake)
    assert model.discriminator is not None

    def gradients(loss: torch.Tensor, module: torch.nn.Module) -> list[torch.Tensor | None]:
        return list(torch.autograd.grad(loss, list(module.parameters()), retain_graph=True, allow_unused=True))

    assert gradients(fooled.sum(), model.discriminator) == [None] * len(list(model.discriminator.parameters()))
    assert all(g is None for g in gradients(real.sum() + fake.sum(), model.autoencoder))
    through = gradients(model.discriminator(restored).sum(), model.autoencoder)
    for ours, expected in zip(gradients(fooled.sum(), model.autoencoder), through, strict=True):
        torch.testing.assert_close(ours, expected)


def test_discriminator_learns_to_tell_and_travels_with_the_checkpoint() -> None:
    torch.manual_seed(0)
    spec = AUTOENCODER.model_copy(update={"adversarial_weight": 0.01})
    model = TrainableAutoencoder.from_spec(spec, 16)
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    for _ in range(25):
        optimizer.zero_grad()
        Reconstruction(spec)(model, image_batch()).sum().backward()
        optimizer.step()
    *_, real, fake = model(scale_images(image_batch().images), torch.zeros(2, 4, 8, 8))
    assert real.mean() > 0 > fake.mean()
    assert any(name.startswith("discriminator.") for name in model.state_dict())
    assert not any(
        name.startswith("discriminator.") for name in TrainableAutoencoder.from_spec(AUTOENCODER, 16).state_dict()
    )


def test_saved_autoencoder_loads_frozen(tmp_path: Path) -> None:
    saved = build_autoencoder(AUTOENCODER, 16)
    saved.save_pretrained(tmp_path)
    loaded = load_autoencoder(tmp_path)
    assert not loaded.training
    assert not any(parameter.requires_grad for parameter in loaded.parameters())
    torch.testing.assert_close(dict(loaded.state_dict()), dict(saved.state_dict()), rtol=0, atol=0)


def test_folders_without_an_autoencoder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"config\.json: cannot be read"):
        load_autoencoder(tmp_path)
    for config, got in (({"_class_name": "VQModel"}, "'VQModel'"), ([1], "None")):
        (tmp_path / "config.json").write_text(json.dumps(config))
        with pytest.raises(WeightsError, match=f"_class_name is {got}; give the folder of an AutoencoderKL"):
            load_autoencoder(tmp_path)


@pytest.mark.parametrize("damage", ["missing", "truncated"])
def test_weights_that_cannot_be_read_are_refused(tmp_path: Path, damage: str) -> None:
    build_autoencoder(AUTOENCODER, 16).save_pretrained(tmp_path)
    (path,) = tmp_path.glob("*.safetensors")
    content = path.read_bytes()
    path.unlink()
    if damage == "truncated":
        path.write_bytes(content[:-1])
    with pytest.raises(WeightsError, match="has no diffusion_pytorch" if damage == "missing" else "cannot be loaded"):
        load_autoencoder(tmp_path)
