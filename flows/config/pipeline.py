"""The configuration of a pipeline: defaults < YAML < ``--set a.b=c``."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import ValidationError, model_validator

from data_pipelines.errors import UserError
from data_pipelines.images.specs import CaptionedSpec
from data_pipelines.volumes.specs import DataSpec
from data_pipelines.specs import Spec
from flows.config.specs import ComputeSpec, NotifySpec, RegistrySpec
from flows.pipelines.diffusion.config import EncodeSpec, EvaluateImagesSpec
from flows.pipelines.segmentation.config import EvaluateSpec
from unet_models.specs.encoders import AlignmentSpec, AutoencoderSpec
from unet_models.specs.diffusion import DiffusionSpec
from unet_models.specs.loop import LoopSpec
from unet_models.specs.segmentation import TrainSpec


class PipelineConfig(Spec):
    """What every pipeline has."""

    pipeline: str
    """Which pipeline this is."""
    storage: str = ""
    """URI below which every stage keeps its outputs; empty: ``UNETFLOW_STORAGE``, else the user's state folder."""
    registry: RegistrySpec = RegistrySpec()
    """Scores and checkpoint to a registered model."""
    compute: ComputeSpec = ComputeSpec()
    """Where and how often."""
    notify: NotifySpec = NotifySpec()
    """Who hears of it."""

    @property
    def storage_uri(self) -> str:
        """Where outputs go, as an absolute URI."""
        return storage_root(self.storage)

    def require_enough_samples(self, stage: str, spec: LoopSpec) -> None:
        """Raise ValueError where a batch is too small for the workers."""
        if spec.global_batch_size < self.compute.most_workers:
            raise ValueError(
                f"{stage}.global_batch_size ({spec.global_batch_size}) is smaller than compute.num_workers "
                f"({self.compute.most_workers}): every worker needs at least one sample"
            )


class SegmentationConfig(PipelineConfig):
    """The whole segmentation pipeline."""

    pipeline: Literal["segmentation"] = "segmentation"
    data: DataSpec = DataSpec()
    """Raw data to shards."""
    train: TrainSpec = TrainSpec()
    """Shards to checkpoint."""
    evaluate: EvaluateSpec = EvaluateSpec()
    """Checkpoint to scores."""

    @model_validator(mode="after")
    def _axes_agree(self) -> SegmentationConfig:
        if len(self.train.patch_size) != self.data.ndim:
            raise ValueError(
                f"train.patch_size has {len(self.train.patch_size)} numbers, data.ndim is {self.data.ndim}: "
                "give one number per spatial axis"
            )
        spacing = self.data.preprocess.spacing
        if isinstance(spacing, tuple) and len(spacing) != self.data.ndim:
            raise ValueError(f"data.preprocess.spacing has {len(spacing)} numbers, data.ndim is {self.data.ndim}")
        self.require_enough_samples("train", self.train)
        return self


DIFFUSERS_MULTIPLE = 8
"""Of pixels: other sides are refused by ``StableDiffusionPipeline``."""


class DiffusionConfig(PipelineConfig):
    """The whole latent-diffusion pipeline."""

    pipeline: Literal["diffusion"] = "diffusion"
    data: CaptionedSpec = CaptionedSpec()
    """Captioned images to shards."""
    train_clip: AlignmentSpec = AlignmentSpec()
    """The text and the image tower, where ``encode.clip`` names none."""
    train_autoencoder: AutoencoderSpec = AutoencoderSpec()
    """The autoencoder, where ``encode.autoencoder`` names none."""
    encode: EncodeSpec = EncodeSpec()
    """Shards to latents and text states."""
    train: DiffusionSpec = DiffusionSpec()
    """Latents to checkpoint."""
    evaluate: EvaluateImagesSpec = EvaluateImagesSpec()
    """Checkpoint to generated images and their scores."""

    @property
    def sides(self) -> dict[str, int]:
        """Fields that set the sides of images, in pixels, to their values."""
        sides = {"data.resolution": self.data.resolution}
        return sides | ({"data.bucket_multiple": self.data.bucket_multiple} if self.data.crop == "buckets" else {})

    def require_sides(self, factor: int, autoencoder: str) -> None:
        """Raise ValueError where sides of images are not such as an autoencoder of this factor, and diffusers, take."""
        multiple = max(factor, DIFFUSERS_MULTIPLE)  # powers of two
        for field, pixels in self.sides.items():
            if pixels % multiple:
                raise ValueError(
                    f"{field} ({pixels}) must be a multiple of {multiple}: {autoencoder} shrinks images by {factor}, "
                    f"and diffusers' pipelines take multiples of {DIFFUSERS_MULTIPLE}"
                )

    @model_validator(mode="after")
    def _autoencoder_agrees(self) -> DiffusionConfig:
        model, autoencoder = self.train.model, self.train_autoencoder
        if self.encode.autoencoder:
            return self
        if {model.in_channels, model.out_channels} != {autoencoder.latent_channels}:
            raise ValueError(
                f"train.model.in_channels and out_channels ({model.in_channels}, {model.out_channels}) must be "
                f"train_autoencoder.latent_channels ({autoencoder.latent_channels})"
            )
        self.require_sides(2 ** (len(autoencoder.channels) - 1), "train_autoencoder")
        self.require_enough_samples("train_autoencoder", autoencoder)
        return self

    @model_validator(mode="after")
    def _clip_agrees(self) -> DiffusionConfig:
        model, clip = self.train.model, self.train_clip
        if model.context_dim is None or model.num_class_embeds is not None:
            raise ValueError(
                "train.model: this pipeline conditions on text alone; give context_dim, and leave num_class_embeds out"
            )
        if self.encode.clip:
            return self
        if model.context_dim != clip.width:
            raise ValueError(
                f"train.model.context_dim ({model.context_dim}) must be train_clip.width ({clip.width}): "
                "cross-attention reads the text states"
            )
        if self.data.resolution % clip.patch_pixels:
            raise ValueError(
                f"data.resolution ({self.data.resolution}) must be a multiple of train_clip.patch_pixels "
                f"({clip.patch_pixels})"
            )
        self.require_enough_samples("train_clip", clip)
        counts = range(self.compute.least_workers, self.compute.most_workers + 1)
        if any(clip.global_batch_size % count for count in counts):
            raise ValueError(
                f"train_clip.global_batch_size ({clip.global_batch_size}) must be a multiple of "
                f"compute.num_workers ({self.compute.num_workers}): every pair meets all others of the batch"
            )
        return self

    @model_validator(mode="after")
    def _steps_suffice(self) -> DiffusionConfig:
        self.require_enough_samples("train", self.train)
        if self.evaluate.num_inference_steps > self.train.noise.num_timesteps:
            raise ValueError(
                f"evaluate.num_inference_steps ({self.evaluate.num_inference_steps}) must be at most "
                f"train.noise.num_timesteps ({self.train.noise.num_timesteps})"
            )
        return self


Config = SegmentationConfig | DiffusionConfig
CONFIGS: dict[str, type[SegmentationConfig] | type[DiffusionConfig]] = {
    "segmentation": SegmentationConfig,
    "diffusion": DiffusionConfig,
}


def state_folder() -> Path:
    """This user's state: below ``XDG_STATE_HOME``, else ``~/.local/state``."""
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "unetflow"


def storage_root(named: str = "") -> str:
    """Absolute URI of the storage: the one named, ``UNETFLOW_STORAGE``, or the user's state folder."""
    uri = named or os.environ.get("UNETFLOW_STORAGE") or str(state_folder())
    return uri if "://" in uri else str(Path(uri).expanduser().absolute())


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> Config:
    """Read a YAML file and apply ``a.b=value`` overrides, values being YAML too.

    ``pipeline:`` says which configuration it is, segmentation where it is absent. Raises UserError naming the file,
    the field and the rule.
    """
    path = Path(path)
    try:
        values = yaml.safe_load(path.read_text()) or {}
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); name an existing configuration file") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: is not valid YAML in UTF-8: {error}") from None
    if not isinstance(values, dict):
        raise UserError(f"{path}: must hold fields such as `data:` and `train:`, found a {type(values).__name__}")
    for override in overrides:
        _apply(values, override)
    kind = values.get("pipeline", "segmentation")
    if kind not in CONFIGS:
        raise UserError(f"{path}: pipeline: there is no {kind!r}; choose {' or '.join(CONFIGS)}")
    try:
        return CONFIGS[kind].model_validate(values)
    except ValidationError as error:
        lines = [f"  {'.'.join(map(str, e['loc'])) or '(whole file)'}: {_plain(e)}" for e in error.errors()]
        raise UserError(f"{path}: {len(lines)} field(s) are wrong:\n" + "\n".join(lines)) from None


def _apply(values: dict[str, Any], override: str) -> None:
    name, separator, text = override.partition("=")
    if not separator or not name:
        raise UserError(f"--set {override}: write it as a.b=value, for example --set train.num_steps=100")
    *parents, leaf = name.split(".")
    for parent in parents:
        values = values.setdefault(parent, {})
        if not isinstance(values, dict):
            raise UserError(f"--set {override}: {parent} is a value, not a group of fields")
    try:
        values[leaf] = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UserError(f"--set {override}: the value is not valid YAML: {error}") from None


def _plain(error: Any) -> str:
    if error["type"] == "extra_forbidden":
        return "there is no such field; see the configuration reference in the README"
    message = error["msg"].removeprefix("Value error, ")
    return message if error["type"] == "value_error" else f"{message} (got {error['input']!r})"
