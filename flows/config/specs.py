"""What a user may say about running, evaluating and registering. Light to import: no Ray, no Prefect, no MLflow."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from data_pipelines.specs import LocalPath, Spec
from unet_models.specs.diffusion import SampleSpec
from unet_models.specs.segmentation import PredictSpec


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

    clip: LocalPath = ""
    """Folder of a CLIP with its tokenizer (Stable Diffusion 1.x: ``openai/clip-vit-large-patch14``), or of its text
    tower alone; empty: train a small one on the captions (``train_clip``)."""
    autoencoder: LocalPath = ""
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
    inception_weights: LocalPath = ""
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
