"""Record of a finished stage: outputs with size and digest, and typed figures."""

from __future__ import annotations

import json
import logging
from typing import Any, Generic, TypeVar

from pydantic import field_validator

from data_pipelines import storage
from data_pipelines.digests import digest_of
from data_pipelines.specs import Spec
from flows.metrics import check_metric_names

logger = logging.getLogger(__name__)

RECORD = "record.json"
SEAL = "own_sha256"
"""Entry of a record's file: digest of all others."""
OBSERVATIONS = {"curves", "checkpoint", "notices", "report", "overlay"}
"""Outputs that describe how a stage went, such as the pace of a training; later stages do not depend on them."""


class Figures(Spec):
    """Typed numbers and names that a stage leaves for later stages and for people. Each stage has a subclass."""

    def run_tags(self) -> dict[str, str]:
        """Return tags for the stage's MLflow run; none by default."""
        return {}

    def run_metrics(self) -> dict[str, float]:
        """Return metrics of the stage as a whole for its MLflow run; none by default."""
        return {}

    def earlier_seconds(self) -> float:
        """Return the wall time of the attempts before the one that finished, as far as it is known."""
        return 0.0


class EvaluationFigures(Figures):
    """Figures of a stage that measures a model."""

    metrics: dict[str, float]
    """Full name (see ``flows.metrics``) to value."""

    @field_validator("metrics")
    @classmethod
    def _are_known(cls, metrics: dict[str, float]) -> dict[str, float]:
        check_metric_names(metrics)
        return metrics


class Output(Spec):
    """One file that a stage wrote."""

    uri: str
    """Relative to the stage's folder; absolute for files that several runs share."""
    size: int
    """Bytes."""
    sha256: str

    def resolve(self, stage_uri: str) -> str:
        """Return the absolute URI."""
        return self.uri if self.uri.startswith("/") or "://" in self.uri else storage.join(stage_uri, self.uri)


F = TypeVar("F", bound=Figures, covariant=True)


class Record(Spec, Generic[F]):
    """Result of a finished stage: locations, digests and figures, never tensors."""

    stage: str
    key: str
    uri: str
    """The stage's folder."""
    outputs: dict[str, Output]
    figures: F
    seconds: float
    """Wall time of the attempt that finished."""
    cpu_seconds: float = 0.0
    """CPUs that it reserved, times the wall time of all attempts that are known. 0: not recorded, by an earlier
    version; and likewise ``gpu_seconds``."""
    gpu_seconds: float = 0.0
    """GPUs that it reserved, times the same."""

    def output(self, name: str) -> str:
        """Return the URI of an output."""
        return self.outputs[name].resolve(self.uri)

    @property
    def root(self) -> str:
        """Storage in which the stage's folder lies."""
        return self.uri.rsplit("/", 2)[0]

    @property
    def digest(self) -> str:
        """Identity that later stages depend on: the content, not when, where or how fast it was made."""
        contents = {name: output.sha256 for name, output in self.outputs.items() if name not in OBSERVATIONS}
        return digest_of([self.stage, self.key, contents])


def read_record(uri: str, figures: type[F]) -> Record[F] | None:
    """Read the record in a stage's folder without checking its outputs; None where no valid one exists."""
    try:
        text = storage.read_bytes(storage.join(uri, RECORD))
    except FileNotFoundError:
        return None
    try:
        content = json.dumps(open_seal(text))
        record = Record[figures].model_validate_json(content)  # type: ignore[valid-type]  # a class at run time
    except (ValueError, KeyError) as error:  # KeyError: a metric that the table no longer has
        logger.warning("%s: invalid record, the stage runs again: %s", uri, error)
        return None
    return record.model_copy(update={"uri": uri})  # the storage may have moved as a whole


def write_record(record: Record[Figures]) -> None:
    """Write the record into its stage's folder, with the digest of its own content."""
    values = json.loads(record.model_dump_json())
    text = json.dumps(values | {SEAL: digest_of(values)}, indent=1)
    storage.write_bytes(storage.join(record.uri, RECORD), text.encode())


def open_seal(text: bytes) -> dict[str, Any]:
    """Parse the JSON of a record. Raises ValueError where it is none, or another than was written."""
    values = json.loads(text)
    if not isinstance(values, dict):
        raise ValueError("it is not a JSON object")
    seal = values.pop(SEAL, None)
    if seal not in (None, digest_of(values)):  # None: of an earlier version
        raise ValueError("it is damaged: SHA-256 mismatch")
    return values
