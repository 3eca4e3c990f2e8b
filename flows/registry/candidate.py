"""A model that is to be registered: what it was made from, how good it is, and how to compare it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.registry.champion import Champion, Compared
from flows.stages.record import EvaluationFigures, Figures, Record
from flows.stages.shards import ShardFigures

if TYPE_CHECKING:
    from mlflow.models import ModelSignature


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """Description of a model's files for MLflow."""

    signature: ModelSignature
    input_example: Any
    """Any input that pyfunc accepts: MLflow tries the model on it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Registrable:
    """A model's files and the code that predicts with them."""

    description: str
    """Description of the registered model, whatever its version."""
    code: Path
    """File that MLflow runs to make the model (models from code)."""
    requirements: tuple[str, ...]
    """Distributions that the code imports; their installed versions become the model's requirements."""
    write_files: Callable[[Path], ModelFiles]
    """Writes the model's files into a folder."""
    metadata: Mapping[str, Any] = field(default_factory=dict)
    """Facts about the input that prediction needs before it loads the model; JSON."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate(Registrable):
    """A model that is to be registered, with what it was made from and how good it is."""

    default_metric: str
    """Metric that is compared with the champion's where the configuration names none."""
    evaluation_data: str
    """Digest of everything that the metrics depend on beside the model."""
    evaluation: Record[EvaluationFigures]
    lineage: tuple[Record[Figures], ...]
    """Records of all stages that led to the model, the evaluation's among them."""
    run_key: str
    """Key of the stage whose MLflow run the version belongs to."""
    step: int
    """Training step that the metrics belong to."""
    build_card: Callable[[], str]
    """Returns Markdown that says what the model is, how good it is and how to use it."""
    compare: Callable[[Champion, str], Compared]
    """Measures the champion on the data of this evaluation, and compares both case by case, by the named metric. A
    DataError, InputError or WeightsError that it raises says why the champion cannot be measured."""
    dataset: Record[ShardFigures] | None = None
    """Data set that is logged as the run's input."""

    def named_lineage(self) -> dict[str, Record[Figures]]:
        """Name the records by their stage; those of a stage that has several are numbered."""
        groups: dict[str, list[Record[Figures]]] = {}
        for record in self.lineage:
            groups.setdefault(record.stage, []).append(record)
        return {
            record.stage if len(group) == 1 else f"{record.stage}_{place}": record
            for group in groups.values()
            for place, record in enumerate(group)
        }
