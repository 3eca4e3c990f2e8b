"""A trained text-to-image model, as a folder that diffusers loads too where it has its networks: prompts to images.

    model_index.json                                        a ``StableDiffusionPipeline`` without safety checker;
                                                            absent where diffusers has none for the conditions
    tokenizer/ text_encoder/ vae/ unet/ scheduler/          its parts; weights are safetensors
    unetflow.json                                           noise process, sampling defaults, size of the latents

Evaluation and the registered model both generate through ``TextToImage``, so what is registered is what was evaluated.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from data_pipelines.errors import InputError, WeightsError
from data_pipelines.loading.order import evenly_spaced, group_alike
from flows.pipelines.diffusion.image_condition import ImageConditioner
from flows.registry.bundle import read_bundle, write_bundle
from unet_models.formats.clip_folder import Clip, save_text_encoder, save_tokenizer
from unet_models.formats.denoiser_folder import load_denoiser, pipeline_obstacle, save_denoiser
from unet_models.networks.autoencoder import downsampling_factor, images_at_once, load_autoencoder
from unet_models.networks.denoiser import Denoiser
from unet_models.networks.tokenizer import count_tokens
from unet_models.precision import autocast
from unet_models.sampling.conditions import Conditions
from unet_models.sampling.noise import build_scheduler
from unet_models.sampling.samplers import Trace, draw_noise, sample_latents
from unet_models.specs.diffusion import Bundle, ImageRequest, SampleSpec

logger = logging.getLogger(__name__)

INDEX = "model_index.json"
PARTS = {
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "vae": ["diffusers", "AutoencoderKL"],
    "unet": ["diffusers", "UNet2DConditionModel"],
}


def write_pipeline(
    folder: Path, bundle: Bundle, denoiser: Denoiser, clip_folder: Path, autoencoder_folder: Path
) -> None:
    """Write the model folder from a denoiser and the folders of the encoders."""
    clip = Clip(clip_folder)
    save_tokenizer(folder / "tokenizer", clip.tokenizer)
    save_text_encoder(folder / "text_encoder", clip.text)
    autoencoder = load_autoencoder(autoencoder_folder)
    autoencoder.register_to_config(scaling_factor=bundle.scaling_factor)
    autoencoder.save_pretrained(str(folder / "vae"))
    save_denoiser(denoiser, folder / "unet", bundle.latent_shape[-1])
    scheduler = build_scheduler(bundle.sample.sampler, bundle.noise)
    scheduler.save_pretrained(str(folder / "scheduler"))
    if not pipeline_obstacle(denoiser.spec):
        (folder / INDEX).write_text(json.dumps(_pipeline_index(type(scheduler).__name__), indent=1))
    write_bundle(folder, bundle)


def _pipeline_index(scheduler: str) -> dict[str, Any]:
    """Return the parts of the folder, as diffusers reads them."""
    return {
        "_class_name": "StableDiffusionPipeline",
        **PARTS,
        "scheduler": ["diffusers", scheduler],
        "safety_checker": [None, None],
        "feature_extractor": [None, None],
        "image_encoder": [None, None],
        "requires_safety_checker": False,
    }


class TextToImage:
    """Generates images for prompts."""

    def __init__(self, folder: Path, device: str | torch.device | None = None) -> None:
        """Load what ``write_pipeline`` wrote."""
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self.bundle = read_bundle(folder, Bundle)
        self.clip = Clip(folder / "text_encoder", self.device)
        self.autoencoder = load_autoencoder(folder / "vae", self.device)
        self.denoiser = load_denoiser(folder / "unet").to(self.device)
        self.conditioner = ImageConditioner(self.autoencoder, self.bundle, self.device)

    def draw(
        self,
        requests: Sequence[ImageRequest],
        spec: SampleSpec | None = None,
        images: Sequence[np.ndarray | None] | None = None,
    ) -> list[np.ndarray]:
        """Generate one image (height, width, 3) uint8 per request; each depends on its own request, up to rounding.

        ``images`` holds for each request the image that it is conditioned on, see ``ImageConditioner``.

        Raises InputError where a side is not a multiple of what the autoencoder shrinks sides by, and where a condition
        is not one of the model's.
        """
        spec = spec or self.bundle.sample
        given = [None] * len(requests) if images is None else images
        shapes = [self.latent_shape(request) for request in requests]
        self._tell_cut_prompts(requests)
        drawn: dict[int, np.ndarray] = {}
        for chosen in group_alike(shapes, spec.batch_size):
            latents = self._latents([requests[i] for i in chosen], shapes[chosen[0]], spec, [given[i] for i in chosen])
            drawn |= zip(chosen, self.decode(latents), strict=True)
        return [drawn[i] for i in range(len(requests))]

    def _tell_cut_prompts(self, requests: Sequence[ImageRequest]) -> None:
        """Warn of prompts that are longer than the text encoder reads."""
        tokenizer = self.clip.tokenizer
        prompts = list(dict.fromkeys(text for each in requests for text in (each.prompt, each.negative_prompt)))
        counts = zip(prompts, count_tokens(tokenizer, prompts), strict=True)
        cut = [prompt for prompt, count in counts if count > tokenizer.model_max_length]
        if cut:
            limit = tokenizer.model_max_length
            logger.warning("%d prompts have more than %d tokens, the rest is ignored: %.80r", len(cut), limit, cut[0])

    @property
    def takes_text(self) -> bool:
        """Tell whether prompts are one of the model's conditions."""
        return self.denoiser.spec.context_dim is not None

    def trace(self, request: ImageRequest, num_pictures: int, image: np.ndarray | None = None) -> list[np.ndarray]:
        """Decode the latents of one image on the way, evenly spaced from the first step to the last."""
        seen: list[Tensor] = []

        def keep(step: int, latents: Tensor) -> None:
            seen.append(latents.clone())

        self.sample(request, image, keep)
        return list(self.decode(torch.cat(evenly_spaced(seen, num_pictures))))

    def sample(self, request: ImageRequest, image: np.ndarray | None = None, trace: Trace | None = None) -> Tensor:
        """Sample the latents (1, C, h, w) of one image; ``trace`` is called after each step."""
        return self._latents([request], self.latent_shape(request), self.bundle.sample, [image], trace)

    def draw_prior(self, seeds: Sequence[int]) -> np.ndarray:
        """Decode pure noise: what a model that learnt nothing but the latents' scale would generate."""
        return self.decode(draw_noise(self.bundle.latent_shape, [_generator(seed) for seed in seeds]))

    @torch.no_grad()
    def decode(self, latents: Tensor) -> np.ndarray:
        """Decode scaled latents to images (N, height, width, 3) uint8."""
        with autocast(self.bundle.sample.precision, self.device):
            scaled = latents.to(self.device) / self.bundle.scaling_factor
            factor = downsampling_factor(self.autoencoder.config)
            size = self._images_at_once(*(side * factor for side in latents.shape[-2:]))
            parts = [to_pixels(self.autoencoder.decode(part).sample) for part in scaled.split(size)]
        return np.concatenate(parts)

    @torch.no_grad()
    def reconstruct(self, images: Tensor) -> np.ndarray:
        """Reconstruct images (N, 3, height, width) in -1..1 from the posterior mean: (N, height, width, 3) uint8."""
        with autocast(self.bundle.sample.precision, self.device):
            size = self._images_at_once(*images.shape[-2:])
            parts = [to_pixels(self.autoencoder(part.to(self.device)).sample) for part in images.split(size)]
        return np.concatenate(parts)

    def _images_at_once(self, height: int, width: int) -> int:
        return images_at_once(height, width, self.bundle.sample.batch_size)

    def batches(self, values: Tensor) -> tuple[Tensor, ...]:
        """Split into batches of the size that is used for sampling."""
        return values.split(self.bundle.sample.batch_size)

    def latent_shape(self, request: ImageRequest) -> tuple[int, int, int]:
        """Return the shape (C, h, w) of an image's latents. Raises InputError for a side that the autoencoder lacks."""
        channels, height, width = self.bundle.latent_shape
        factor = downsampling_factor(self.autoencoder.config)
        for name, pixels in (("width", request.width), ("height", request.height)):
            if pixels is not None and pixels % factor:
                raise InputError(f"{name} must be a multiple of {factor} pixels, got {pixels}")
        return channels, (request.height or height * factor) // factor, (request.width or width * factor) // factor

    def _latents(
        self,
        requests: Sequence[ImageRequest],
        shape: tuple[int, int, int],
        spec: SampleSpec,
        images: Sequence[np.ndarray | None],
        trace: Trace | None = None,
    ) -> Tensor:
        with autocast(spec.precision, self.device):
            known = self.conditioner.known(images, shape)
            return sample_latents(
                self.denoiser,
                self.bundle.noise,
                spec,
                shape,
                [_generator(request.seed) for request in requests],
                Conditions(self._states([r.prompt for r in requests]), self._labels(requests), known),
                Conditions(self._states([r.negative_prompt for r in requests]), self._labels(requests, of=""), known),
                [request.guidance_scale for request in requests],
                trace,
            )

    def _states(self, prompts: list[str]) -> Tensor | None:
        return self.clip.text_states(prompts) if self.takes_text else None

    def _labels(self, requests: Sequence[ImageRequest], of: str | None = None) -> Tensor | None:
        """Return the labels of the requested classes, or of ``of`` alone. Raises InputError for an unknown one."""
        classes = self.bundle.classes
        numbers = {name: number for number, name in enumerate(classes)} | {"": len(classes)}
        names = [request.class_name if of is None else of for request in requests]
        if unknown := [name for name in names if name not in numbers]:
            known = f"one of {', '.join(classes)}" if classes else "none: it was trained without classes"
            raise InputError(f"class: unknown class {unknown[0]!r}; the model takes {known}")
        if not classes:
            return None
        return torch.tensor([numbers[name] for name in names], device=self.device)


def to_pixels(images: Tensor) -> np.ndarray:
    """Convert images (N, 3, H, W) in -1..1 to (N, H, W, 3) uint8, rounded as diffusers does.

    Raises WeightsError where a pixel is not finite: it would become black.
    """
    if not bool(torch.isfinite(images).all()):
        raise WeightsError(
            "the generated images are not finite: the networks' weights are broken, or the precision is too low "
            "(evaluate.precision=fp32)"
        )
    scaled = (images.float() / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1).cpu().numpy()
    pixels: np.ndarray = (scaled * 255).round().astype(np.uint8)
    return pixels


def _generator(seed: int) -> torch.Generator:
    """Build a generator on the CPU: the same numbers whatever the device."""
    return torch.Generator("cpu").manual_seed(seed)
