"""Predict with a registered model over many inputs: here or on every actor of a cluster, resumed where it stopped.

A segmentation model takes a file, a glob or a folder of volumes and writes a label map for each; a restoration model
takes images likewise and writes an image for each; a text-to-image model takes a file of prompts and writes an image
for each. ``predictions.json`` in the output folder says which version made them, and from what content: an input that
has changed is predicted again.
"""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field

from data_pipelines.atomic import atomic_files
from data_pipelines.errors import NUM_EXAMPLES, ConfigError, InputError, RegistryError
from data_pipelines.progress import track
from data_pipelines.specs import Spec
from flows.cluster.actors import map_on_actors
from flows.config.specs import ComputeSpec
from flows.pipelines.restoration.clips import read_clip_facts
from flows.pipelines.segmentation.maps import MapName, find_maps
from flows.registry import tracking
from flows.registry.models import READS_AHEAD, ModelVersion, find_version
from flows.running.prediction.changes import log_changes
from flows.running.prediction.here import map_here, runs_here
from flows.running.prediction.inputs import plan_items
from flows.running.prediction.items import Item
from flows.running.prediction.manifest import check_distinct, claim_folder, output_files
from flows.running.prediction.pictures import TAKES_PICTURES
from flows.running.prediction.volumes import Naming

logger = logging.getLogger(__name__)


class PredictionSummary(Spec):
    """Counts and failures of one call."""

    model_uri: str
    output: str
    num_predicted: int
    num_found_done: int
    """Predictions that existed already."""
    failures: dict[str, str]
    """Output to the error."""
    skipped: dict[str, str] = Field(default={})
    """File or folder of the input that is not predicted, to the reason."""


class Options(Spec):
    """Parameters of predictions; a model takes those that its signature names."""

    memory_gb: float | None = None
    """Memory in GB that the prediction of an image may take; None: as the model was registered."""
    probabilities: bool = False
    """Also write calibrated probabilities."""
    uncertainty: bool = False
    """Also write the entropy of the probabilities, and the disagreement of several members."""

    @property
    def params(self) -> dict[str, float | bool]:
        """Return those that are set."""
        return {name: value for name, value in self if value}

    @property
    def maps(self) -> tuple[MapName, ...]:
        """Return the maps that every model leaves beside a label map."""
        return find_maps(1, probabilities=self.probabilities, uncertainty=self.uncertainty)


NO_OPTIONS = Options()


def predict(
    model_uri: str,
    source: str,
    output: str,
    compute: ComputeSpec,
    root: str,
    options: Options = NO_OPTIONS,
    suffix: str = "",
) -> PredictionSummary:
    """Predict what does not exist yet.

    Label maps have the format that ``suffix`` names, by default that of their input.

    Raises UserError where there is no such model or input, the model cannot be loaded, or the output folder holds
    another version's predictions.
    """
    if remote := [place for place in (source, output) if "://" in place]:
        raise ConfigError(f"{remote[0]}: input and output are paths here; copy them, or mount the store")
    version = find_version(model_uri, root)
    folder = Path(output).expanduser().absolute()
    for name in options.params:
        if name not in version.params:
            raise InputError(f"{version.uri} does not take {name}; leave --{name.removesuffix('_gb')} out")
    takes_prompts, images = "prompt" in version.inputs, read_clip_facts(version.metadata)
    plan = plan_items(
        source,
        folder,
        takes_prompts=takes_prompts,
        takes_pictures=version.metadata.items() >= TAKES_PICTURES.items(),
        images=images,
        naming=Naming.of(version.metadata),
        suffix=suffix,
    )
    items = plan.items
    _log_skipped(plan.skipped)
    if unknown := sorted({name for item in items for name in item.row} - set(version.inputs)):
        known = ", ".join(version.inputs)
        raise InputError(f"{source}: {version.uri} has no input {', '.join(unknown)}; it takes {known}")
    check_distinct(items, options.maps)
    claim_folder(folder, version, items)
    due = [item for item in items if not all(file.exists() for file in output_files(item.output, options.maps))]
    logger.info("predict: %s, %d inputs, %d of them done already", version.uri, len(items), len(items) - len(due))
    failures = dict(_predict_all(version, due, compute, tracking.tracking_uri(root), options.params)) if due else {}
    log_changes(plan.clips, {item.output for item in due}, failures.keys(), images)
    return PredictionSummary(
        model_uri=version.uri,
        output=str(folder),
        num_predicted=len(due) - len(failures),
        num_found_done=len(items) - len(due),
        failures=failures,
        skipped=plan.skipped,
    )


def _log_skipped(skipped: Mapping[str, str]) -> None:
    if skipped:
        named = "; ".join(f"{path}: {reason}" for path, reason in list(skipped.items())[:NUM_EXAMPLES])
        more = f"; and {len(skipped) - NUM_EXAMPLES} more" if len(skipped) > NUM_EXAMPLES else ""
        logger.warning("predict: %d entries of the input are skipped: %s%s", len(skipped), named, more)


def _predict_all(
    version: ModelVersion, due: Sequence[Item], compute: ComputeSpec, server: str, params: Mapping[str, float | bool]
) -> Iterator[tuple[str, str]]:
    """Predict all items; yield (output, error) of those that failed. Actors are told the server: theirs is not ours."""
    shared = {"model": version.uri, "server": server, "params": json.dumps(params)}
    items = [shared | {"row": json.dumps(item.row), "output": item.output} for item in due]
    calls = 2 if version.metadata.items() >= READS_AHEAD.items() else 1
    here = runs_here(compute)
    rows = map_here(Predictor(), items, compute, calls) if here else map_on_actors(Predictor, items, compute, calls)
    for result in track(((1, row) for row in rows), "predict", "inputs", len(due)):
        if result["is_fatal"]:
            raise RegistryError(f"{version.uri}: the model cannot be loaded: {result['error']}")
        if result["error"]:
            logger.warning("predict: %s", result["error"])
            yield result["output"], result["error"]


class Predictor:
    """A worker that loads the model with its first item."""

    model: Any = None
    loading: ClassVar = threading.Lock()
    """Held while the model is loaded: of a model that reads ahead, several items are predicted at once."""

    def __call__(self, item: dict[str, Any]) -> dict[str, Any]:
        """Predict one item into its file, which appears complete or not at all; a failure is returned, not raised."""
        try:
            with self.loading:
                self.model = self.model or _load(item["model"], item["server"])
        except Exception as error:  # of MLflow, its store, or a package that the model needs
            return {"output": item["output"], "error": str(error), "is_fatal": True}
        row, output = json.loads(item["row"]), Path(item["output"])
        try:
            with atomic_files(output) as partial:
                columns = {name: [value] for name, value in row.items()} | {"output": [str(partial)]}
                self.model.predict(columns, params=json.loads(item["params"]) or None)
        except Exception as error:  # this input's fault; the others are predicted
            return {"output": str(output), "error": f"{row.get('path', output.name)}: {error}", "is_fatal": False}
        return {"output": str(output), "error": "", "is_fatal": False}


def _load(uri: str, server: str) -> Any:
    tracking.use_server(server)
    import mlflow

    return mlflow.pyfunc.load_model(uri)
