"""Images drawn by every sampler are those of diffusers' pipeline from the same folder."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from data_pipelines.errors import InputError, WeightsError
from flows.pipelines.diffusion.text_to_image import TextToImage, to_pixels, write_pipeline
from unet_models.formats.clip_folder import save_clip
from unet_models.networks.autoencoder import build_autoencoder
from unet_models.networks.clip import build_clip
from unet_models.networks.denoisers.unet import DenoisingUNet
from unet_models.networks.tokenizer import train_tokenizer
from unet_models.specs.denoisers import DenoisingUNetSpec
from unet_models.specs.diffusion import Bundle, ImageRequest
from unet_models.specs.encoders import AlignmentSpec, AutoencoderSpec

# diffusers' DPM-Solver hands tensors to numpy as numpy 1 took them.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn:DeprecationWarning")

DENOISER = DenoisingUNetSpec(
    channels=(8, 16), attention_levels=(False, True), num_res_blocks=1, num_heads=2, context_dim=16, num_groups=4
)
PURE = {"schedule": "cosine", "prediction_type": "v_prediction", "zero_terminal_snr": True}


@pytest.fixture(scope="module")
def encoders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Folders of a CLIP and of an autoencoder that halves sides twice, neither trained."""
    torch.manual_seed(0)
    clip, autoencoder = tmp_path_factory.mktemp("clip"), tmp_path_factory.mktemp("vae")
    spec = AlignmentSpec(vocab_size=514, num_tokens=8, width=16, num_layers=1, num_heads=2, vector_size=4)
    tokenizer = train_tokenizer(["a red circle"], spec.vocab_size, spec.num_tokens)
    save_clip(clip, build_clip(spec, tokenizer, 16), tokenizer, 16)
    build_autoencoder(AutoencoderSpec(channels=(8, 8, 8)), 16).save_pretrained(str(autoencoder))
    return clip, autoencoder


def pipeline_folder(encoders: tuple[Path, Path], folder: Path, noise: dict[str, Any], **sample: Any) -> Path:
    """A text-to-image model whose noise predictor is random, but not silent."""
    bundle = Bundle.model_validate(
        {"noise": noise, "sample": sample, "latent_shape": (4, 4, 4), "scaling_factor": 0.7, "format": 1}
    )
    torch.manual_seed(1)
    denoiser = DenoisingUNet(DENOISER)
    with torch.no_grad():
        for parameter in denoiser.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    write_pipeline(folder, bundle, denoiser, *encoders)
    return folder


@pytest.mark.parametrize(
    ("sampler", "noise", "steps"),
    [
        ("ddpm", {}, 5),
        ("ddpm", {"num_timesteps": 20}, 20),
        ("ddpm", PURE, 5),
        ("ddim", {}, 5),
        ("ddim", {"schedule": "linear", "beta_end": 0.02, "prediction_type": "sample"}, 7),
        ("ddim", PURE, 5),
        ("dpm_solver", {}, 5),
        ("dpm_solver", {"schedule": "cosine", "prediction_type": "v_prediction"}, 1),
    ],
)
def test_images_are_those_of_the_pipeline(
    sampler: str, noise: dict[str, Any], steps: int, encoders: tuple[Path, Path], tmp_path: Path
) -> None:
    from diffusers import StableDiffusionPipeline

    folder = pipeline_folder(encoders, tmp_path, noise, sampler=sampler, num_inference_steps=steps)
    asked = [
        ImageRequest(prompt="a red circle", seed=3, guidance_scale=2.0),
        ImageRequest(prompt="a circle", seed=4, guidance_scale=3.0, negative_prompt="red", width=24, height=8),
    ]
    ours = TextToImage(folder, "cpu").draw(asked)
    theirs = StableDiffusionPipeline.from_pretrained(folder, local_files_only=True)
    theirs.set_progress_bar_config(disable=True)
    for image, request in zip(ours, asked, strict=True):
        expected = theirs(
            request.prompt,
            negative_prompt=request.negative_prompt,
            guidance_scale=request.guidance_scale,
            num_inference_steps=steps,
            width=request.width,
            height=request.height,
            generator=torch.Generator().manual_seed(request.seed),
            output_type="np",
        ).images[0]
        assert image.shape == expected.shape
        assert image.std() > 5
        assert np.abs(image.astype(int) - (expected * 255).round().astype(int)).max() <= 1


def test_an_image_does_not_depend_on_its_company(encoders: tuple[Path, Path], tmp_path: Path) -> None:
    model = TextToImage(pipeline_folder(encoders, tmp_path, {}, sampler="ddpm", num_inference_steps=3, batch_size=2))
    asked = [ImageRequest(prompt="a circle", seed=i, guidance_scale=2.0, width=16 + 8 * (i % 2)) for i in range(5)]
    together = model.draw(asked)
    assert [image.shape for image in together] == [(16, 16 + 8 * (i % 2), 3) for i in range(5)]
    for image, request in zip(together, asked, strict=True):
        assert np.abs(image.astype(int) - model.draw([request])[0]).max() <= 1


def test_sides_that_the_autoencoder_does_not_have(encoders: tuple[Path, Path], tmp_path: Path) -> None:
    model = TextToImage(pipeline_folder(encoders, tmp_path, {}))
    with pytest.raises(InputError, match="height must be a multiple of 4 pixels, got 18"):
        model.draw([ImageRequest(prompt="", seed=0, guidance_scale=1.0, height=18)])


def test_pixels_that_are_not_finite_are_no_image() -> None:
    with pytest.raises(WeightsError, match="drawn images are not finite"):
        to_pixels(torch.full((1, 3, 2, 2), float("nan")))


def test_prompts_that_are_cut_are_told(
    encoders: tuple[Path, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = TextToImage(pipeline_folder(encoders, tmp_path, {}, num_inference_steps=1), "cpu")
    with caplog.at_level(logging.WARNING):
        model.draw([ImageRequest(prompt="a", seed=0, guidance_scale=1.0)])
        assert "not read" not in caplog.text
        model.draw([ImageRequest(prompt="a red circle " * 9, seed=0, guidance_scale=1.0)])
    assert "1 prompts have more than 8 tokens, the rest is not read: 'a red circle a red" in caplog.text
