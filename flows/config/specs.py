"""Settings for compute, registry and notification, the same for every pipeline."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from data_pipelines.specs import Spec
from flows.metrics import parse_metric_name

Count = Annotated[int, Field(ge=1)]

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class ComputeSpec(Spec):
    """Resources of the stages, and retries. Nothing here changes what is computed, except for float rounding."""

    num_workers: Count | tuple[Count, Count] = 2
    """Ray Train workers (data-parallel ranks) and evaluation actors. ``[min, max]`` makes training elastic: it uses as
    many as the cluster has, and resumes with the remaining ones when a node is lost."""
    use_gpu: bool = False
    """Reserve one GPU per worker."""
    threads_per_worker: int = Field(default=1, ge=1)
    """CPU threads per worker, reserved as Ray CPUs."""
    loader_processes: int = Field(default=0, ge=0)
    """Prefetching processes per worker; 0 (default) reads in the worker itself, enough for small volumes."""
    max_failures: int = Field(default=2, ge=0)
    """Restarts of the training workers, from the last checkpoint, after a worker died."""
    stop_grace_seconds: float = Field(default=30.0, ge=0)
    """Time, in seconds, that training may take to save a checkpoint after SIGTERM, Ctrl-C or ``unetflow cancel``; the
    default is that of Kubernetes (``terminationGracePeriodSeconds``). 0: it ends at once."""
    retries: int = Field(default=2, ge=0)
    """Retries of a failed stage by Prefect."""
    retry_delay_seconds: float = Field(default=10.0, ge=0)
    """Delay before the first retry, in seconds; it doubles with each retry, with jitter."""
    timeout_seconds: float | None = Field(default=None, gt=0)
    """Time limit of one stage, in seconds; null (default): no limit."""

    @property
    def min_workers(self) -> int:
        """Number of workers below which nothing runs."""
        return self.num_workers if isinstance(self.num_workers, int) else self.num_workers[0]

    @property
    def max_workers(self) -> int:
        """Number of workers above which more are not used."""
        return self.num_workers if isinstance(self.num_workers, int) else self.num_workers[1]

    @property
    def num_cpus(self) -> int:
        """CPUs that all workers reserve together."""
        return self.max_workers * self.threads_per_worker

    @property
    def worker_resources(self) -> dict[str, float]:
        """Resources that Ray reserves for each worker, by Ray's names."""
        return {"CPU": float(self.threads_per_worker)} | ({"GPU": 1.0} if self.use_gpu else {})

    @property
    def required_resources(self) -> dict[str, int]:
        """Resources that the Ray cluster must have, by Ray's names."""
        return {"CPU": self.min_workers * self.threads_per_worker, "GPU": self.min_workers * self.use_gpu}

    @model_validator(mode="after")
    def _check_range(self) -> ComputeSpec:
        if self.min_workers > self.max_workers:
            raise ValueError(f"num_workers: [min, max] must be ascending, got {self.num_workers}")
        return self


REFUSED_IN_NAMES = frozenset("/:.%\"'")
"""Characters that MLflow's registry refuses in the name of a model, when everything is trained."""


class RegistrySpec(Spec):
    """The registered model, and the conditions under which a version is promoted to champion."""

    name: str = Field(default="unetflow", min_length=1)
    """Name of the registered model, without any of the characters ``/ : . % " '``, which MLflow refuses."""
    experiment: str = Field(default="unetflow", min_length=1)
    """MLflow experiment of the run."""
    min_metrics: dict[str, float] = Field(default={})
    """Thresholds for the ``champion`` alias: minimum value of each metric, such as ``{dice: 0.8}``."""
    max_metrics: dict[str, float] = Field(default={})
    """Thresholds for the ``champion`` alias: maximum value of each metric, for metrics where lower is better."""
    compare_metric: str = ""
    """Metric in which a new version must beat the champion, which is measured on the same held-out data; empty
    (default): ``dice`` for segmentation, ``fid`` or ``frechet_distance`` for diffusion, ``psnr`` (of inpainting
    ``psnr/hole``) for restoration. Its direction is that of the table of metrics."""
    compare_level: float = Field(default=0.95, ge=0.5, lt=1)
    """Confidence level at which a new version must be better than the champion (paired bootstrap over the held-out
    cases). 0.5: any improvement counts."""
    without_comparison: Literal["keep", "promote"] = "keep"
    """Fate of a champion that cannot be measured on the new data, having other classes or another input: it is
    kept and the new version is a challenger, or the new version is promoted."""
    export: tuple[Literal["onnx", "torch_export"], ...] = ("onnx", "torch_export")
    """Formats in which the networks are also exported, in float32, for programs without Python or MLflow."""

    @field_validator("name")
    @classmethod
    def _mlflow_takes_name(cls, name: str) -> str:
        if refused := sorted(set(name) & REFUSED_IN_NAMES):
            raise ValueError(
                f"MLflow does not accept a model name with {' '.join(refused)}, got {name!r}; leave them out"
            )
        return name

    @field_validator("min_metrics", "max_metrics")
    @classmethod
    def _thresholds_are_of_metrics(cls, thresholds: dict[str, float]) -> dict[str, float]:
        for name in thresholds:
            _check_comparable(name)
        return thresholds

    @field_validator("compare_metric")
    @classmethod
    def _compared_is_metric(cls, name: str) -> str:
        if name:
            _check_comparable(name)
        return name


def _check_comparable(name: str) -> None:
    """Raise ValueError where ``name`` is no metric, or one without a direction."""
    try:
        metric = parse_metric_name(name).metric
    except KeyError:
        raise ValueError(f"unknown metric {name}; `unetflow config --metrics` lists them") from None
    if metric.better == "neither":
        raise ValueError(f"{name} has no direction, so nothing can be compared by it")


class NotifySpec(Spec):
    """Notification targets for failures, stalls and new champions."""

    webhook: str = ""
    """Environment variable, such as ``SLACK_WEBHOOK``, with the URL that takes a POST of ``{"text": ...}``, as Slack,
    Mattermost and Teams workflows accept it; empty (default): none. Not the URL itself: whoever has it can post, and
    configurations are stored and shown."""
    block: str = ""
    """Prefect notification block, as ``TYPE/NAME`` such as ``slack-webhook/ml``; empty (default): none."""
    stall_factor: float = Field(default=10.0, ge=0)
    """Alert, also in the log, when a training reports no step for this many times the usual time between two reports,
    and for a minute at least. 0: never."""

    @field_validator("webhook")
    @classmethod
    def _webhook_is_variable(cls, name: str) -> str:
        if name and not _VARIABLE.fullmatch(name):
            raise ValueError(
                "names the environment variable that holds the URL, and not the URL, which is a secret: "
                "`export SLACK_WEBHOOK=URL` where the pipeline runs, and write SLACK_WEBHOOK here"
            )
        return name
