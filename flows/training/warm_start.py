"""Where a training begins: from nothing, or from the champion's weights."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from data_pipelines import storage
from data_pipelines.errors import UserError
from flows.registry import tracking
from flows.config.pipeline import Config
from flows.registry.models import CHAMPION
from flows.stages.record import Record, read_record


@dataclass(frozen=True, slots=True)
class Base:
    """Weights that a training begins with."""

    uri: str
    sha256: str

    @property
    def figures(self) -> dict[str, Any]:
        """For the training's record, so that the next one knows."""
        return asdict(self)


def find_base(config: Config, inputs: tuple[Record, ...]) -> Base | None:
    """The champion's weights; None where there is no champion yet.

    A champion that was trained on these very inputs is no base for itself: its own base is taken, so that the stage's
    key is that of its training, which is found done. Raises UserError where the champion's training is not in this
    storage.
    """
    from mlflow.exceptions import MlflowException

    root, name = config.storage_uri, config.registry.name
    try:
        champion = tracking.connect(root).get_model_version_by_alias(name, CHAMPION)
    except MlflowException as error:
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            return None
        raise
    key = champion.tags.get("unetflow.train_key", "")
    record = read_record(storage.join(root, "train", key)) if key else None
    if record is None:
        raise UserError(
            f"train.warm_start: the training of {name} version {champion.version} is not in {root}; run with the "
            "storage it was trained in, or leave warm_start out"
        )
    if all(champion.tags.get(f"unetflow.{each.stage}_digest") == each.digest for each in inputs):
        before = record.figures.get("warm_start")
        return Base(**before) if before else None
    return Base(record.output("weights"), record.outputs["weights"].sha256)
