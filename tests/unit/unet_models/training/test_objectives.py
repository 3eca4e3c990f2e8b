"""Objectives: losses by hand, and random numbers addressed by the sample's position."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from data_pipelines.batches import ImageBatch, LatentBatch
from tests.support.encoders import AUTOENCODER, image_batch
from unet_models.restoration.build import build_task
from unet_models.restoration.restorer import Restorer, TrainableRestorer
from unet_models.sampling.pixels import scale_images
from unet_models.specs.denoisers import DenoisingUNetSpec
from unet_models.specs.diffusion import DiffusionSpec
from unet_models.specs.networks import UNetSpec
from unet_models.specs.restoration import DenoisingSpec, RestorationSpec
from unet_models.training.objectives import NoisePrediction, Reconstruction, Restoration, adversarial_loss

# --- Noise prediction ------------------------------------------------------------------------------------------------


class Recorder(torch.nn.Module):
    """Predicts zeros and remembers what it was shown."""

    def forward(
        self,
        noisy: torch.Tensor,
        timesteps: torch.Tensor,
        context: torch.Tensor | None,
        class_labels: torch.Tensor | None = None,
    ) -> torch.Tensor:
        self.noisy, self.timesteps, self.context, self.labels = noisy, timesteps, context, class_labels
        return torch.zeros_like(noisy[:, :4])


def batch(positions: tuple[int, ...], step: int = 3) -> LatentBatch:
    generator = torch.Generator().manual_seed(5)
    moments = torch.randn(256, 8, 4, 4, generator=generator)
    states = torch.ones(256, 6, 2)
    rows = list(positions)
    return LatentBatch(moments[rows], states[rows], torch.tensor(rows) % 3, positions, tuple(map(str, positions)), step)


def objective(**changes: object) -> NoisePrediction:
    model = DenoisingUNetSpec(channels=(8,), attention_levels=(False,), num_heads=1, num_groups=4)
    spec = DiffusionSpec.model_validate({"model": model, "precision": "fp32", **changes})
    return NoisePrediction(spec, 0.5, torch.zeros(6, 2))


def test_sample_sees_the_same_noise_in_any_company() -> None:
    together, alone = Recorder(), Recorder()
    whole = objective()(together, batch((0, 1, 2, 3)))
    single = objective()(alone, batch((2,)))
    torch.testing.assert_close(together.noisy[2:3], alone.noisy, rtol=0, atol=0)
    assert together.timesteps[2] == alone.timesteps[0]
    assert whole[2] == single[0]


def test_noise_changes_with_step_and_seed() -> None:
    shown = [Recorder() for _ in range(3)]
    objective()(shown[0], batch((0,)))
    objective()(shown[1], batch((0,), step=4))
    objective(seed=1)(shown[2], batch((0,)))
    assert len({recorder.noisy.sum().item() for recorder in shown}) == 3


@pytest.mark.parametrize("rate", [0.0, 0.3])
def test_captions_are_dropped_as_often_as_asked(rate: float) -> None:
    recorder = Recorder()
    objective(caption_dropout=rate)(recorder, batch(tuple(range(256))))
    dropped = (recorder.context == 0).flatten(1).all(dim=1).float().mean().item()
    assert dropped == pytest.approx(rate, abs=5 * (rate * (1 - rate) / 256) ** 0.5)


CONDITIONED = {
    "model": {"channels": (8,), "attention_levels": (False,), "num_heads": 1, "num_groups": 4, "in_channels": 9,
              "num_class_embeds": 4},
    "precision": "fp32",
    "class_dropout": 0.3,
}  # fmt: skip


def conditioned(**changes: object) -> NoisePrediction:
    return NoisePrediction(DiffusionSpec.model_validate(CONDITIONED | changes), 0.5, torch.zeros(6, 2))


@pytest.mark.parametrize("kind", ["low_resolution", "masked"])
def test_classes_and_images_are_dropped_as_often_as_asked_each_on_its_own(kind: str) -> None:
    recorder, shown = Recorder(), batch(tuple(range(256)))
    conditioned(image_condition={"kind": kind, "dropout": 0.4}, caption_dropout=0.5)(recorder, shown)
    assert recorder.labels is not None
    assert recorder.context is not None
    assert recorder.noisy.shape == (256, 9, 4, 4)
    hole, known = recorder.noisy[:, 4:5], recorder.noisy[:, 5:]
    no_class, no_image = recorder.labels == 3, hole.flatten(1).all(dim=1)
    no_text = (recorder.context == 0).flatten(1).all(dim=1)
    rates = [each.float().mean().item() for each in (no_class, no_image, no_text, no_class & no_image & no_text)]
    assert rates == pytest.approx([0.3, 0.4, 0.5, 0.3 * 0.4 * 0.5], abs=0.1)
    assert torch.equal(recorder.labels[~no_class], shown.class_labels[~no_class])
    assert not known[no_image].any()
    assert not (known * hole).any()
    assert known[~no_image].flatten(1).any(dim=1).all()


@pytest.mark.parametrize("kind", ["low_resolution", "masked"])
def test_conditions_of_a_sample_are_the_same_in_any_company(kind: str) -> None:
    together, alone = Recorder(), Recorder()
    conditioned(image_condition={"kind": kind, "dropout": 0.0})(together, batch((0, 1, 2, 3)))
    conditioned(image_condition={"kind": kind, "dropout": 0.0})(alone, batch((2,)))
    assert together.labels is not None
    assert alone.labels is not None
    assert torch.equal(together.noisy[2:3], alone.noisy)
    assert together.labels[2] == alone.labels[0]


def test_a_network_without_text_is_shown_none() -> None:
    recorder = Recorder()
    plain = {"channels": (8,), "attention_levels": (False,), "num_heads": 1, "num_groups": 4, "context_dim": None}
    objective(model=plain)(recorder, batch((0, 1)))
    assert recorder.context is None
    assert recorder.labels is None


def test_latents_are_scaled_before_noise() -> None:
    """The loss of a network that predicts zero clean latents is their scaled second moment."""
    made = objective(noise={"prediction_type": "sample"}, caption_dropout=0)
    moments = torch.cat([torch.full((2, 4, 4, 4), 3.0), torch.full((2, 4, 4, 4), -30.0)], dim=1)
    losses = made(
        Recorder(), LatentBatch(moments, torch.ones(2, 6, 2), torch.zeros(2, dtype=torch.int64), (0, 1), ("a", "b"), 0)
    )
    assert losses.tolist() == pytest.approx([1.5**2] * 2, rel=1e-4)


# --- Reconstruction --------------------------------------------------------------------------------------------------


class Constant(torch.nn.Module):
    """Reconstructs black, with a posterior of known divergence."""

    def forward(self, images: torch.Tensor, noise: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        assert noise.shape == (len(images), 4, 8, 8)
        self.noise = noise
        return torch.full_like(images, -1), torch.cat([torch.full_like(noise, 2.0), torch.zeros_like(noise)], dim=1)


def test_reconstruction_loss_by_hand() -> None:
    """KL of N(2, 1) from N(0, 1) is 2 per latent value (Kingma 2014, appendix B)."""
    batch = image_batch()
    losses = Reconstruction(AUTOENCODER)(Constant(), batch)
    squared = ((scale_images(batch.images) + 1) ** 2).flatten(1).mean(dim=1)
    torch.testing.assert_close(losses, squared + 0.5 * 2 * (4 * 8 * 8) / (3 * 16 * 16))


def test_each_sample_of_the_autoencoder_has_its_own_noise() -> None:
    model = Constant()
    Reconstruction(AUTOENCODER)(model, image_batch())
    together = model.noise
    Reconstruction(AUTOENCODER)(model, image_batch().split(1)[1])
    assert torch.equal(model.noise[0], together[1])


class Judged(Constant):
    """Adds scores of a discriminator for one patch of each image."""

    def forward(self, images: torch.Tensor, noise: torch.Tensor) -> tuple[torch.Tensor, ...]:  # type: ignore[override]
        fooled, real, fake = torch.tensor([[0.5, -2.0], [3.0, 0.25], [-3.0, 0.5]]).unbind()
        return (*super().forward(images, noise), fooled[:, None], real[:, None], fake[:, None])


def test_adversarial_losses_by_hand() -> None:
    """relu(1 - real) / 2 + relu(1 + fake) / 2 - weight * fooled, from the step on that the spec names."""
    plain = Reconstruction(AUTOENCODER)(Constant(), image_batch())
    spec = AUTOENCODER.model_copy(update={"adversarial_weight": 0.1, "adversarial_start": 3})
    before, after = image_batch(), dataclasses.replace(image_batch(), step=3)
    torch.testing.assert_close(Reconstruction(spec)(Judged(), before), plain)
    told = Reconstruction(spec)(Judged(), after) - Reconstruction(AUTOENCODER)(Constant(), after)
    torch.testing.assert_close(told, torch.tensor([0 + 0 - 0.05, 0.375 + 0.75 + 0.2]))


# --- Restoration -----------------------------------------------------------------------------------------------------


def picture_batch(positions: tuple[int, ...], step: int = 3) -> ImageBatch:
    images = torch.randint(0, 256, (8, 3, 16, 16), generator=torch.Generator().manual_seed(1)).to(torch.uint8)
    return ImageBatch(images[list(positions)], positions, tuple(map(str, positions)), step)


def restorer(*, is_adversarial: bool = False) -> TrainableRestorer:
    torch.manual_seed(0)
    model = UNetSpec(channels=(4, 8), norm="none", num_blocks=1, num_decoder_blocks=1)
    return TrainableRestorer(Restorer.build(model, build_task(DenoisingSpec())), is_adversarial=is_adversarial)


def test_degradation_of_a_sample_depends_on_seed_step_and_position_alone() -> None:
    model = restorer()
    charbonnier = RestorationSpec.model_validate({"loss": {"terms": {"charbonnier": 1.0}}})
    losses = [
        Restoration(charbonnier.model_copy(update={"seed": seed}), build_task(DenoisingSpec()))(
            model, picture_batch(positions, step)
        )
        for seed, positions, step in ((0, (0, 1, 2), 3), (0, (2,), 3), (1, (2,), 3), (0, (2,), 4))
    ]
    assert losses[0][2] == losses[1][0]
    assert len({float(loss[-1].detach()) for loss in losses}) == 3
    # The untrained network predicts no noise: Charbonnier's of noise of 25 levels is near its mean absolute value.
    assert float(losses[0].mean().detach()) == pytest.approx(25 / 255 * (2 / torch.pi) ** 0.5, rel=0.05)


def test_adversarial_loss_begins_at_its_step() -> None:
    model = restorer(is_adversarial=True)
    loss = {"terms": {"charbonnier": 1.0, "adversarial": 0.5}, "adversarial_start": 4}
    spec = RestorationSpec.model_validate({"loss": loss})
    plain = spec.model_copy(update={"loss": spec.loss.model_copy(update={"terms": {"charbonnier": 1.0}})})
    task = build_task(DenoisingSpec())
    before, after = (Restoration(spec, task)(model, picture_batch((0, 1), step)) for step in (3, 4))
    alone = [Restoration(plain, task)(restorer(), picture_batch((0, 1), step)) for step in (3, 4)]
    torch.testing.assert_close(before, alone[0])
    assert not torch.allclose(after, alone[1])
    scores = torch.tensor([[2.0]]), torch.tensor([[0.5]]), torch.tensor([[-3.0]])
    assert adversarial_loss(*scores, weight=0.1).tolist() == pytest.approx([0.5 * 0.5 - 0.2])
