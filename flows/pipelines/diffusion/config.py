"""Configuration of the latent-diffusion pipeline."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from data_pipelines.images.specs import CaptionedSpec
from data_pipelines.specs import LocalPath, Spec
from flows.config.pipeline import PipelineConfig
from flows.metrics import parse_metric_name
from unet_models.specs.diffusion import DiffusionSpec, SampleSpec
from unet_models.specs.encoders import AlignmentSpec, AutoencoderSpec


class EncodeSpec(Spec):
    """The networks that turn captions and images into text states and latents."""

    clip: LocalPath = ""
    """Folder of a CLIP with its tokenizer (Stable Diffusion 1.x: ``openai/clip-vit-large-patch14``), or of its text
    tower alone; empty (default): train a small one on the captions (``train_clip``)."""
    autoencoder: LocalPath = ""
    """Folder of an ``AutoencoderKL`` (Stable Diffusion 1.x: ``vae/``); empty (default): train one
    (``train_autoencoder``)."""
    batch_size: int = Field(default=64, ge=1)
    """Images in one forward pass."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """Numeric precision; bf16 is faster on a GPU."""
    scaling_factor: float | None = Field(default=None, gt=0)
    """One over the standard deviation of the latents; None (default): measured on the training images. Set it to that
    of a pretrained noise predictor (``train.init``), such as 0.18215 of Stable Diffusion 1.x."""


class EvaluateImagesSpec(SampleSpec):
    """Sampling of images and their comparison with real ones."""

    num_images: int = Field(default=500, ge=8)
    """Generated images, one per held-out caption in turn; they are compared with up to 5,000 training images."""
    seed: int = Field(default=0, ge=0)
    """Seed: image i is a function of (seed, i), whatever the number of workers."""
    inception_weights: LocalPath = ""
    """File of the FID's Inception weights; empty (default): Fréchet distances on the features of the CLIP's image
    tower, named ``frechet_distance[clip,...]``."""
    guidance_sweep: tuple[float, ...] = (1.0, 2.0, 4.0, 8.0)
    """Guidance scales that the report shows side by side."""
    num_explained: int = Field(default=0, ge=0)
    """Prompts whose attention maps the report shows, token by token; 0 (default): none are computed."""
    num_shown: int = Field(default=8, ge=1)
    """Prompts and nearest-neighbour rows shown in the report."""


COMPARABLE_METRICS = ("frechet_distance", "fid", "caption_accuracy", "relation_accuracy", "alignment")
"""Metrics by which versions can be compared image by image."""
DIFFUSERS_MULTIPLE = 8
"""Pixels: ``StableDiffusionPipeline`` refuses sides that are not a multiple of this."""


class DiffusionConfig(PipelineConfig):
    """Configuration of the latent-diffusion pipeline."""

    pipeline: Literal["diffusion"] = "diffusion"
    """Name of the pipeline."""
    data: CaptionedSpec = CaptionedSpec()
    """Captioned images to shards."""
    train_clip: AlignmentSpec = AlignmentSpec()
    """Training of the small CLIP, used where ``encode.clip`` is empty."""
    train_autoencoder: AutoencoderSpec = AutoencoderSpec()
    """Training of the autoencoder, used where ``encode.autoencoder`` is empty."""
    encode: EncodeSpec = EncodeSpec()
    """Shards to latents and text states."""
    train: DiffusionSpec = DiffusionSpec()
    """Latents to checkpoint."""
    evaluate: EvaluateImagesSpec = EvaluateImagesSpec()
    """Checkpoint to generated images and their scores."""

    @property
    def sides(self) -> dict[str, int]:
        """Fields that set the sides of images to their values in pixels."""
        sides = {"data.resolution": self.data.resolution}
        return sides | ({"data.bucket_multiple": self.data.bucket_multiple} if self.data.crop == "buckets" else {})

    def check_sides(self, factor: int, autoencoder: str) -> None:
        """Raise ValueError where a side is no multiple of what an autoencoder of this factor, and diffusers, accept."""
        multiple = max(factor, DIFFUSERS_MULTIPLE)  # powers of two
        for field, pixels in self.sides.items():
            if pixels % multiple:
                raise ValueError(
                    f"{field} ({pixels}) must be a multiple of {multiple}: {autoencoder} shrinks images by {factor}, "
                    f"and diffusers' pipelines take multiples of {DIFFUSERS_MULTIPLE}"
                )

    @model_validator(mode="after")
    def _check_autoencoder(self) -> DiffusionConfig:
        model, autoencoder = self.train.model, self.train_autoencoder
        if self.encode.autoencoder:
            return self
        if model.out_channels != autoencoder.latent_channels:
            raise ValueError(
                f"train.model.out_channels ({model.out_channels}) must be train_autoencoder.latent_channels "
                f"({autoencoder.latent_channels})"
            )
        self.check_sides(2 ** (len(autoencoder.channels) - 1), "train_autoencoder")
        self.check_batch("train_autoencoder", autoencoder.global_batch_size)
        return self

    @model_validator(mode="after")
    def _check_clip(self) -> DiffusionConfig:
        model, clip = self.train.model, self.train_clip
        if model.num_class_embeds is not None and not self.data.class_from:
            raise ValueError(
                f"train.model.num_class_embeds ({model.num_class_embeds}): the data have no classes; set "
                "data.class_from, or num_class_embeds to null"
            )
        if self.encode.clip:
            return self
        if model.context_dim not in (None, clip.width):
            raise ValueError(
                f"train.model.context_dim ({model.context_dim}) must be train_clip.width ({clip.width}): "
                "cross-attention reads the text states"
            )
        if self.data.resolution % clip.patch_pixels:
            raise ValueError(
                f"data.resolution ({self.data.resolution}) must be a multiple of train_clip.patch_pixels "
                f"({clip.patch_pixels})"
            )
        self.check_batch("train_clip", clip.global_batch_size)
        counts = range(self.compute.min_workers, self.compute.max_workers + 1)
        if any(clip.global_batch_size % count for count in counts):
            raise ValueError(
                f"train_clip.global_batch_size ({clip.global_batch_size}) must be a multiple of "
                f"compute.num_workers ({self.compute.num_workers}): every pair meets all others of the batch"
            )
        if 0 < clip.validate_cases < self.compute.max_workers:
            raise ValueError(
                f"train_clip.validate_cases ({clip.validate_cases}) must be at least compute.num_workers "
                f"({self.compute.num_workers}), or 0: every worker validates as many held-out pairs as the others"
            )
        return self

    @model_validator(mode="after")
    def _check_explained(self) -> DiffusionConfig:
        if self.evaluate.num_explained and self.train.model.context_dim is None:
            raise ValueError(
                f"evaluate.num_explained ({self.evaluate.num_explained}): train.model.context_dim is null: "
                "without text there is no attention to prompts; set num_explained to 0"
            )
        return self

    @model_validator(mode="after")
    def _check_comparison(self) -> DiffusionConfig:
        name = self.registry.compare_metric
        if name and (parse_metric_name(name).metric.name not in COMPARABLE_METRICS or parse_metric_name(name).part):
            raise ValueError(
                f"registry.compare_metric: {name} is not measured image by image, so versions cannot be compared by "
                f"it; choose one of {', '.join(COMPARABLE_METRICS)}"
            )
        return self

    @model_validator(mode="after")
    def _check_steps(self) -> DiffusionConfig:
        self.check_batch("train", self.train.global_batch_size)
        if self.evaluate.num_inference_steps > self.train.noise.num_timesteps:
            raise ValueError(
                f"evaluate.num_inference_steps ({self.evaluate.num_inference_steps}) must be at most "
                f"train.noise.num_timesteps ({self.train.noise.num_timesteps})"
            )
        return self
