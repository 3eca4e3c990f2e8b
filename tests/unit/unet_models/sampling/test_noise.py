"""The diffusion process against closed forms, and against diffusers where it computes the same."""

from __future__ import annotations

import pytest
import torch
from diffusers import DDIMScheduler
from diffusers.training_utils import compute_snr

from unet_models.sampling import noise
from unet_models.specs.diffusion import NoiseSpec

# diffusers asks numpy for arrays of tensors in a way that torch does not support yet.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn:DeprecationWarning")

LATENTS = torch.randn(4, 4, 3, 5, generator=torch.Generator().manual_seed(0))
EPSILON = torch.randn(4, 4, 3, 5, generator=torch.Generator().manual_seed(1))
TIMESTEPS = torch.tensor([0, 200, 700, 999])
TYPES = ("epsilon", "sample", "v_prediction")


def test_stable_diffusions_schedule_by_its_published_ends() -> None:
    alphas = noise.alphas_cumprod(NoiseSpec())
    assert alphas.shape == (1000,)
    assert alphas[0].item() == pytest.approx(1 - 0.00085, abs=1e-6)
    assert alphas[-1].item() == pytest.approx(0.0047, abs=1e-4)


@pytest.mark.parametrize("schedule", ["linear", "scaled_linear", "cosine"])
@pytest.mark.parametrize("num_timesteps", [2, 50, 1000])
def test_signal_at_the_last_timestep_is_that_of_the_schedule(schedule: str, num_timesteps: int) -> None:
    spec = NoiseSpec.model_validate({"schedule": schedule, "num_timesteps": num_timesteps})
    assert spec.last_alpha == pytest.approx(noise.alphas_cumprod(spec)[-1].item(), rel=1e-3)


@pytest.mark.parametrize("schedule", ["linear", "scaled_linear", "cosine"])
def test_zero_terminal_snr_ends_in_pure_noise(schedule: str) -> None:
    spec = NoiseSpec.model_validate(
        {"schedule": schedule, "zero_terminal_snr": True, "prediction_type": "v_prediction"}
    )
    alphas = noise.alphas_cumprod(spec)
    assert alphas[-1] == pytest.approx(0, abs=1e-7)
    assert (alphas.diff() < 0).all()


@pytest.mark.parametrize("prediction_type", TYPES)
def test_noise_and_target_are_the_schedulers(prediction_type: str) -> None:
    spec = NoiseSpec.model_validate({"prediction_type": prediction_type})
    scheduler = noise.build_scheduler("ddpm", spec)
    alphas = noise.alphas_cumprod(spec)[TIMESTEPS]
    noisy = noise.add_noise(LATENTS, EPSILON, alphas)
    torch.testing.assert_close(noisy, scheduler.add_noise(LATENTS, EPSILON, TIMESTEPS))
    if prediction_type == "v_prediction":
        wanted = scheduler.get_velocity(LATENTS, EPSILON, TIMESTEPS)
        torch.testing.assert_close(noise.target(prediction_type, LATENTS, EPSILON, alphas), wanted)


@pytest.mark.parametrize("prediction_type", TYPES)
def test_min_snr_weighs_the_error_of_the_clean_latents(prediction_type: str) -> None:
    """Any network's error, turned into one of the clean latents, must weigh min(SNR, gamma) whatever it predicts."""
    alphas = noise.alphas_cumprod(NoiseSpec())[TIMESTEPS].double()
    clean, epsilon = LATENTS.double(), EPSILON.double()
    wrong = noise.target(prediction_type, clean, epsilon, alphas) + 0.1
    a = alphas.view(-1, 1, 1, 1)
    noisy = noise.add_noise(clean, epsilon, alphas)
    implied = {
        "epsilon": (noisy - (1 - a).sqrt() * wrong) / a.sqrt(),
        "sample": wrong,
        "v_prediction": a.sqrt() * noisy - (1 - a).sqrt() * wrong,
    }[prediction_type]
    snr = compute_snr(noise.build_scheduler("ddpm", NoiseSpec()), TIMESTEPS).double()
    expected = snr.clamp(max=5) * ((implied - clean) ** 2).flatten(1).mean(dim=1)
    weights = noise.loss_weights(prediction_type, alphas, 5.0)
    torch.testing.assert_close(weights * 0.1**2, expected, rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize(
    ("prediction_type", "weights"),
    [
        ("epsilon", [5 / 9, 1, 1]),  # min(SNR, 5) / SNR
        ("sample", [5, 1, 0.25]),  # min(SNR, 5)
        ("v_prediction", [0.5, 0.5, 0.2]),  # min(SNR, 5) / (SNR + 1)
    ],
)
def test_min_snr_weights_worked_out_by_hand(prediction_type: str, weights: list[float]) -> None:
    alphas = torch.tensor([0.9, 0.5, 0.2])  # SNR 9, 1 and 1/4
    assert noise.loss_weights(prediction_type, alphas, 5.0).tolist() == pytest.approx(weights, rel=1e-6)


def test_without_gamma_every_timestep_weighs_the_same() -> None:
    assert noise.loss_weights("epsilon", torch.tensor([0.1, 0.9]), None).tolist() == [1, 1]


def test_timesteps_cover_their_range_evenly() -> None:
    drawn = noise.draw_timesteps((torch.arange(10_000) + 0.5) / 10_000, 10)
    assert drawn.bincount().tolist() == [1000] * 10
    assert noise.draw_timesteps(torch.tensor([1.0]), 10).item() == 9  # float32 rounds 0.99999999 up


@pytest.mark.parametrize("sampler", ["ddpm", "ddim", "dpm_solver"])
@pytest.mark.parametrize("prediction_type", TYPES)
def test_samplers_find_the_image_that_a_perfect_network_knows(sampler: noise.Sampler, prediction_type: str) -> None:
    spec = NoiseSpec.model_validate({"prediction_type": prediction_type})
    scheduler = noise.build_scheduler(sampler, spec)
    scheduler.set_timesteps(20)
    alphas = noise.alphas_cumprod(spec)
    clean = LATENTS[:1]
    latents = EPSILON[:1]
    for t in scheduler.timesteps:
        a = alphas[t]
        implied = (latents - a.sqrt() * clean) / (1 - a).sqrt()
        output = noise.target(prediction_type, clean, implied, a[None])
        latents = scheduler.step(output, t, latents, generator=torch.Generator().manual_seed(0), return_dict=False)[0]
    torch.testing.assert_close(latents, clean, atol=0.15, rtol=0)


@pytest.mark.parametrize("sampler", ["ddpm", "ddim", "dpm_solver"])
@pytest.mark.parametrize("steps", [1, 7, 20, 50, 999, 1000])
def test_timesteps_are_those_of_diffusers_trailing(sampler: noise.Sampler, steps: int) -> None:
    theirs = DDIMScheduler(timestep_spacing="trailing")
    theirs.set_timesteps(steps)
    scheduler = noise.build_scheduler(sampler, NoiseSpec(), steps)
    assert scheduler.timesteps.tolist() == theirs.timesteps.tolist()
    assert 0 <= scheduler.timesteps.min() <= scheduler.timesteps.max() == 999
    assert scheduler.config.timestep_spacing == "trailing"


@pytest.mark.parametrize("sampler", ["ddpm", "ddim", "dpm_solver"])
def test_every_number_of_steps_has_that_many_timesteps(sampler: noise.Sampler) -> None:
    """Rounding makes diffusers add timestep -1 to 61 of 1000, among others."""
    for steps in (61, 103, 206, 457, 998):
        timesteps = noise.build_scheduler(sampler, NoiseSpec(), steps).timesteps.tolist()
        assert len(set(timesteps)) == steps
        assert min(timesteps) >= 0


@pytest.mark.parametrize("prediction_type", TYPES)
def test_ddim_is_that_of_diffusers_where_timesteps_are_evenly_spaced(prediction_type: str) -> None:
    spec = NoiseSpec.model_validate({"prediction_type": prediction_type})
    ours = noise.build_scheduler("ddim", spec, 20)
    theirs = DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        prediction_type=prediction_type,
        timestep_spacing="trailing",
    )
    theirs.set_timesteps(20)
    x = y = LATENTS
    for t in theirs.timesteps:
        output = 0.5 * EPSILON + 0.1 * x
        x, y = ours.step(output, t, x).prev_sample, theirs.step(output, t, y).prev_sample
        torch.testing.assert_close(x, y, rtol=1e-4, atol=1e-4)
