"""The champion as a new version is compared with it: its files, and what a comparison found."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import ValidationError

from data_pipelines import storage
from data_pipelines.errors import InputError
from flows.metrics import find_value, parse_metric_name
from flows.registry.bundle import BUNDLE_ARTIFACT
from flows.registry.gate import Comparison, Incomparable
from flows.registry.models import METRICS_TAG, TAG_PREFIX
from flows.stages.record import F, Record, read_record
from unet_models.metrics.comparison import Counts, compare_paired
from unet_models.metrics.summary import mean_of_class_means

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion as MlflowVersion

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

    def has(self, stage: str) -> bool:
        """Tell whether a stage of this name is in its lineage."""
        return f"{TAG_PREFIX}{stage}_key" in self.tags

    def fetch_bundle(self, folder: Path) -> Path:
        """Download its files below ``folder``; return the folder that its pipeline wrote."""
        return fetch_bundle(f"models:/{self.name}/{self.version}", folder)

    def find_evaluation(
        self, evaluation_data: str, root: str, figures: type[F], stage: str = "evaluate"
    ) -> Record[F] | None:
        """Find its own evaluation, by ``stage``, in this storage, where it was on the same data; None otherwise."""
        key = self.tags.get(f"{TAG_PREFIX}{stage}_key")
        if self.tags.get(EVALUATION_TAG) != evaluation_data or not key:
            return None
        return read_record(storage.join(root, stage, key), figures)


@dataclass(frozen=True, slots=True)
class Compared:
    """A comparison and the scores behind it."""

    outcome: Comparison | Incomparable
    rows: pa.Table | None = None
    """One row per case: its name, and the scores of both models."""


def fetch_bundle(uri: str, folder: Path) -> Path:
    """Download the files of a registered version below ``folder``; return the folder that its pipeline wrote."""
    import mlflow

    return Path(mlflow.artifacts.download_artifacts(uri, dst_path=str(folder))) / "artifacts" / BUNDLE_ARTIFACT


@contextmanager
def readable_bundle() -> Iterator[None]:
    """Raise InputError where the block reads a bundle that this version of the project does not know."""
    try:
        yield
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise InputError(f"its files are of another version of unetflow ({where}: {first['msg']})") from None


def compare_scores(
    metric: str, ours: NDArray[np.float64], theirs: NDArray[np.float64], level: float
) -> Comparison | Incomparable:
    """Compare scores ``(cases, classes)`` of two models on the same cases, in the direction of the metric.

    NaN is no value; a case that has none for either model is left out.
    """
    usable = [~np.isnan(table).all(axis=1) for table in (ours, theirs)]
    if not all(each.any() for each in usable):
        return Incomparable(f"no held-out case has a value of {metric} for both models")
    counted = usable[0] | usable[1]  # a case without the class counts where one of them drew it all the same
    tables = ours[counted], theirs[counted]
    score = parse_metric_name(metric).metric.score
    our_score, their_score = (partial(_mean_score, score, table) for table in tables)
    found = compare_paired(our_score, their_score, len(tables[0]), level=level)
    our_mean, their_mean = (float(mean_of_class_means(np.ones((1, len(table))), table)[0]) for table in tables)
    return Comparison(metric, our_mean, their_mean, found.lower_bound, level, len(tables[0]))


def _mean_score(score: Callable[..., Any], table: NDArray[np.float64], counts: Counts) -> NDArray[np.float64]:
    found: NDArray[np.float64] = score(mean_of_class_means(counts, table))
    return found


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
