"""The configuration of a pipeline: defaults < YAML < ``--set a.b=c``."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field, ValidationError, model_validator

from data_pipelines.errors import UserError
from data_pipelines.specs import CaptionedSpec, DataSpec, Spec
from unet_models.diffusion_specs import AlignmentSpec, AutoencoderSpec, DiffusionSpec, SampleSpec
from unet_models.specs import LoopSpec, PredictSpec, TrainSpec


class ComputeSpec(Spec):
    """Where stages run and how often they are tried. Nothing here changes what is computed, but for rounding."""

    num_workers: Annotated[int, Field(ge=1)] | tuple[Annotated[int, Field(ge=1)], Annotated[int, Field(ge=1)]] = 2
    """Ray Train workers (data-parallel ranks) and evaluation actors; ``[least, most]``: as many as the cluster has, and
    when a node is lost, training goes on with those that are left."""
    use_gpu: bool = False
    """One GPU per worker."""
    threads_per_worker: int = Field(default=1, ge=1)
    """CPU threads of a worker, reserved as Ray CPUs."""
    loader_processes: int = Field(default=0, ge=0)
    """Processes that read ahead for each worker; 0: read in the worker itself, enough for small volumes."""
    max_failures: int = Field(default=2, ge=0)
    """How often training starts its workers again from the last checkpoint after one died."""
    retries: int = Field(default=2, ge=0)
    """How often Prefect tries a failed stage again."""
    retry_delay_seconds: float = Field(default=10.0, ge=0)
    """First delay; it doubles with each retry, with jitter."""
    timeout_seconds: float | None = Field(default=None, gt=0)
    """Longest time for one stage; none: no limit."""

    @property
    def least_workers(self) -> int:
        """Without so many nothing runs."""
        return self.num_workers if isinstance(self.num_workers, int) else self.num_workers[0]

    @property
    def most_workers(self) -> int:
        """More are not used."""
        return self.num_workers if isinstance(self.num_workers, int) else self.num_workers[1]

    @property
    def num_cpus(self) -> int:
        """CPUs that all workers reserve together."""
        return self.most_workers * self.threads_per_worker

    @property
    def least_resources(self) -> dict[str, int]:
        """What Ray must have, by its names."""
        return {"CPU": self.least_workers * self.threads_per_worker, "GPU": self.least_workers * self.use_gpu}

    @model_validator(mode="after")
    def _least_is_not_most(self) -> ComputeSpec:
        if self.least_workers > self.most_workers:
            raise ValueError(f"num_workers: the first of [least, most] must not be larger, got {self.num_workers}")
        return self


class EvaluateSpec(PredictSpec):
    """How the held-out cases are predicted and scored, in their original geometry."""

    tolerance_mm: float = Field(default=1.0, gt=0)
    """Tolerance of the surface Dice."""


class EncodeSpec(Spec):
    """Which networks turn captions and images into what the U-Net learns from."""

    clip: str = ""
    """Folder of a CLIP with its tokenizer (Stable Diffusion 1.x: ``openai/clip-vit-large-patch14``), or of its text
    tower alone; empty: train a small one on the captions (``train_clip``)."""
    autoencoder: str = ""
    """Folder of an ``AutoencoderKL`` (Stable Diffusion 1.x: ``vae/``); empty: train one (``train_autoencoder``)."""
    batch_size: int = Field(default=64, ge=1)
    """Images encoded at once."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """bf16 is faster on a GPU."""


class EvaluateImagesSpec(SampleSpec):
    """How generated images are drawn and compared with real ones."""

    num_images: int = Field(default=500, ge=8)
    """Images drawn, one per held-out caption in turn; they are compared with up to 5,000 training images."""
    seed: int = 0
    """Image i is a function of (seed, i), whatever the number of workers."""
    inception_weights: str = ""
    """File of the FID's Inception weights; empty: distances in the feature space of the image tower, named so."""
    guidance_sweep: tuple[float, ...] = (1.0, 2.0, 4.0, 8.0)
    """Guidance scales that the report shows side by side."""
    num_shown: int = Field(default=8, ge=1)
    """Prompts, neighbours and so on shown in the report."""


class RegistrySpec(Spec):
    """The registered model, and what it must reach to become champion."""

    name: str = "unetflow"
    """Name of the registered model."""
    experiment: str = "unetflow"
    """MLflow experiment of the run."""
    min_metrics: dict[str, float] = Field(default={})
    """Least value of each metric for the ``champion`` alias, such as ``{dice: 0.8}``."""
    max_metrics: dict[str, float] = Field(default={})
    """Largest value of each metric for the ``champion`` alias, where less is better."""
    compare_metric: str = ""
    """The metric in which a new champion must beat the old one on the same evaluation data; empty: ``dice``, or
    ``frechet_distance``. Of distances less is better."""
    export: tuple[Literal["onnx", "torch_export"], ...] = ("onnx", "torch_export")
    """Formats in which the networks also lie beside the weights, in float32, for programs without Python or MLflow."""


class NotifySpec(Spec):
    """Who hears of failures and of new champions."""

    webhook: str = ""
    """URL that gets a POST of ``{"text": ...}``, as Slack, Mattermost and Teams workflows take it; empty: nobody."""
    block: str = ""
    """Prefect notification block, as ``TYPE/NAME`` such as ``slack-webhook/ml``; empty: none."""


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

    @model_validator(mode="after")
    def _networks_agree(self) -> DiffusionConfig:
        model = self.train.model
        if not self.encode.clip and model.context_dim != self.train_clip.width:
            raise ValueError(
                f"train.model.context_dim ({model.context_dim}) must be train_clip.width ({self.train_clip.width}): "
                "cross-attention reads the text states"
            )
        latent_channels = self.train_autoencoder.latent_channels
        if not self.encode.autoencoder and {model.in_channels, model.out_channels} != {latent_channels}:
            raise ValueError(
                f"train.model.in_channels and out_channels ({model.in_channels}, {model.out_channels}) must be "
                f"train_autoencoder.latent_channels ({latent_channels})"
            )
        if model.context_dim is None or model.num_class_embeds is not None:
            raise ValueError(
                "train.model: this pipeline conditions on text alone; give context_dim, and leave num_class_embeds out"
            )
        factor = 2 ** (len(self.train_autoencoder.channels) - 1)
        if not self.encode.autoencoder and self.data.resolution % factor:
            raise ValueError(
                f"data.resolution ({self.data.resolution}) must be a multiple of {factor}, by which train_autoencoder "
                "shrinks images"
            )
        if not self.encode.clip and self.data.resolution % self.train_clip.patch_pixels:
            raise ValueError(
                f"data.resolution ({self.data.resolution}) must be a multiple of train_clip.patch_pixels "
                f"({self.train_clip.patch_pixels})"
            )
        if not self.encode.clip:
            self.require_enough_samples("train_clip", self.train_clip)
            counts = range(self.compute.least_workers, self.compute.most_workers + 1)
            if any(self.train_clip.global_batch_size % count for count in counts):
                raise ValueError(
                    f"train_clip.global_batch_size ({self.train_clip.global_batch_size}) must be a multiple of "
                    f"compute.num_workers ({self.compute.num_workers}): every pair meets all others of the batch"
                )
        if not self.encode.autoencoder:
            self.require_enough_samples("train_autoencoder", self.train_autoencoder)
        self.require_enough_samples("train", self.train)
        if self.evaluate.num_inference_steps >= self.train.noise.num_timesteps:
            raise ValueError(
                f"evaluate.num_inference_steps ({self.evaluate.num_inference_steps}) must be below "
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
