"""The configuration of a pipeline: defaults < YAML < ``--set a.b=c``."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field, ValidationError, model_validator

from data_pipelines.errors import UserError
from data_pipelines.specs import DataSpec, Spec
from unet_models.specs import PredictSpec, TrainSpec


class ComputeSpec(Spec):
    """Where stages run and how often they are tried. Nothing here changes what is computed, but for rounding."""

    num_workers: int = Field(default=2, ge=1)
    """Ray Train workers (data-parallel ranks) and evaluation actors."""
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
    def num_cpus(self) -> int:
        """CPUs that all workers reserve together."""
        return self.num_workers * self.threads_per_worker


class EvaluateSpec(PredictSpec):
    """How the held-out cases are predicted and scored, in their original geometry."""

    tolerance_mm: float = Field(default=1.0, gt=0)
    """Tolerance of the surface Dice."""


class RegistrySpec(Spec):
    """The registered model, and what it must reach to become champion."""

    name: str = "unetflow-segmentation"
    """Name of the registered model."""
    experiment: str = "unetflow"
    """MLflow experiment of the run."""
    min_metrics: dict[str, float] = Field(default={})
    """Least value of each metric for the ``champion`` alias, such as ``{dice: 0.8}``."""
    compare_metric: str = "dice"
    """The metric in which a new champion must beat the old one on the same evaluation data."""


class SegmentationConfig(Spec):
    """The whole segmentation pipeline."""

    pipeline: Literal["segmentation"] = "segmentation"
    storage: str = ""
    """URI below which every stage keeps its outputs; empty: ``UNETFLOW_STORAGE``, else the user's state folder."""
    data: DataSpec = DataSpec()
    """Raw data to shards."""
    train: TrainSpec = TrainSpec()
    """Shards to checkpoint."""
    evaluate: EvaluateSpec = EvaluateSpec()
    """Checkpoint to scores."""
    registry: RegistrySpec = RegistrySpec()
    """Scores and checkpoint to a registered model."""
    compute: ComputeSpec = ComputeSpec()
    """Where and how often."""

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
        if self.train.global_batch_size < self.compute.num_workers:
            raise ValueError(
                f"train.global_batch_size ({self.train.global_batch_size}) is smaller than compute.num_workers "
                f"({self.compute.num_workers}): every worker needs at least one sample"
            )
        return self

    @property
    def storage_uri(self) -> str:
        """Where outputs go, as an absolute URI."""
        uri = self.storage or os.environ.get("UNETFLOW_STORAGE") or str(state_folder())
        return uri if "://" in uri else str(Path(uri).expanduser().absolute())


def state_folder() -> Path:
    """This user's state: below ``XDG_STATE_HOME``, else ``~/.local/state``."""
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "unetflow"


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> SegmentationConfig:
    """Read a YAML file and apply ``a.b=value`` overrides, values being YAML too.

    Raises UserError naming the file, the field and the rule.
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
    try:
        return SegmentationConfig.model_validate(values)
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
