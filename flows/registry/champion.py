"""The champion as a new version is compared with it: its files, and what a comparison found."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
from pydantic import ValidationError

from data_pipelines import storage
from data_pipelines.errors import InputError
from flows.metrics import find_value, parse_metric_name
from flows.registry.gate import Comparison, Incomparable
from flows.registry.models import METRICS_TAG, TAG_PREFIX
from flows.stages.record import F, Record, read_record

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion as MlflowVersion

BUNDLE = "bundle"
"""Artifact of every registered model: the folder of its files."""
EVALUATION_TAG = f"{TAG_PREFIX}evaluation_data"


@dataclass(frozen=True, slots=True)
class Champion:
    """A registered version that holds the alias ``champion``."""

    name: str
    version: str
    model_id: str
    """Identity of its files, whatever the version is called."""
    tags: Mapping[str, str]

    @classmethod
    def of(cls, version: MlflowVersion) -> Champion:
        """Describe a version of MLflow."""
        return cls(version.name, str(version.version), str(version.source), dict(version.tags))

    def fetch_bundle(self, folder: Path) -> Path:
        """Download its files below ``folder``; return the folder that its pipeline wrote."""
        return fetch_bundle(f"models:/{self.name}/{self.version}", folder)

    def find_evaluation(self, evaluation_data: str, root: str, figures: type[F]) -> Record[F] | None:
        """Find its own evaluation in this storage, where it was on the same data; None otherwise."""
        key = self.tags.get(f"{TAG_PREFIX}evaluate_key")
        if self.tags.get(EVALUATION_TAG) != evaluation_data or not key:
            return None
        return read_record(storage.join(root, "evaluate", key), figures)


@dataclass(frozen=True, slots=True)
class Compared:
    """A comparison and the scores behind it."""

    outcome: Comparison | Incomparable
    rows: pa.Table | None = None
    """One row per case: its name, and the scores of both models."""


def fetch_bundle(uri: str, folder: Path) -> Path:
    """Download the files of a registered version below ``folder``; return the folder that its pipeline wrote."""
    import mlflow

    return Path(mlflow.artifacts.download_artifacts(uri, dst_path=str(folder))) / "artifacts" / BUNDLE


@contextmanager
def readable_bundle() -> Iterator[None]:
    """Raise InputError where the block reads a bundle that this version of the project does not know."""
    try:
        yield
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise InputError(f"its files are of another version of unetflow ({where}: {first['msg']})") from None


def compare_figures(evaluation_data: str, metric: str, ours: Mapping[str, float], champion: Champion) -> Compared:
    """Compare by figures alone, for pipelines without scores of single cases: any improvement counts.

    The champion must have been evaluated on the same data.
    """
    if champion.tags.get(EVALUATION_TAG) != evaluation_data:
        return Compared(Incomparable(f"version {champion.version} was evaluated on other data"))
    theirs = find_value(json.loads(champion.tags.get(METRICS_TAG, "{}")), metric)
    if math.isnan(theirs):
        return Compared(Incomparable(f"version {champion.version} was not measured by {metric}"))
    value, direction = find_value(ours, metric), parse_metric_name(metric).metric.score
    return Compared(Comparison(metric, value, theirs, direction(value) - direction(theirs), level=0.5, num_cases=None))
