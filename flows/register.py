"""Stage ``register``: checkpoint and scores -> a model in the MLflow registry, champion if it earns it."""

from __future__ import annotations

import json
import logging
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from data_pipelines import storage
from data_pipelines.shards import read_table
from flows.config import SegmentationConfig
from flows.evaluate import build_bundle
from flows.stages import Attempt, Record, Stage

if TYPE_CHECKING:
    import pandas as pd
    from mlflow import MlflowClient
    from mlflow.models import ModelSignature

logger = logging.getLogger(__name__)

CHAMPION, CHALLENGER = "champion", "challenger"
EVALUATION_TAG = "unetflow.evaluation_data"
REQUIREMENTS = ("torch", "numpy", "scipy", "nibabel", "pillow", "pydicom", "safetensors", "pydantic", "jaxtyping")
"""What the model's own code imports; versions are those it was evaluated with."""


def register_stage(config: SegmentationConfig, shards: Record, training: Record, evaluation: Record) -> Stage:
    """Plan the stage. Its effect lies in MLflow: a record whose model version is gone does not hold any more."""
    from flows.tracking import tracking_uri

    root = config.storage_uri
    identity = config.registry.model_dump(mode="json") | {"tracking": tracking_uri(root)}

    def compute(attempt: Attempt) -> None:
        _register(config, shards, training, evaluation, attempt)

    return Stage("register", identity, (training, evaluation), compute, lambda record: _is_registered(record, root))


def decide_alias(
    metrics: dict[str, float], champion: dict[str, float] | None, min_metrics: dict[str, float], compare: str
) -> tuple[str, str]:
    """(alias, reason): the gate. ``champion`` holds its metrics on the same evaluation data, if it has any."""
    for name, least in min_metrics.items():
        if not metrics.get(name, float("-inf")) >= least:
            return CHALLENGER, f"{name} is {metrics.get(name, float('nan')):.4f}, below the threshold {least}"
    if champion is None:
        return CHAMPION, "thresholds met, and no champion was evaluated on the same data"
    ours, theirs = metrics.get(compare, float("-inf")), champion.get(compare, float("-inf"))
    if ours > theirs:
        return CHAMPION, f"{compare} {ours:.4f} beats the champion's {theirs:.4f} on the same data"
    return CHALLENGER, f"{compare} {ours:.4f} does not beat the champion's {theirs:.4f} on the same data"


def _register(
    config: SegmentationConfig, shards: Record, training: Record, evaluation: Record, attempt: Attempt
) -> None:
    from flows import tracking

    client = tracking.connect(config.storage_uri)
    metrics: dict[str, float] = evaluation.figures["metrics"]
    run_id = tracking.open_run(
        client, config.storage_uri, config.registry.experiment, training.key, config.registry.name
    )
    tracking.log_parameters(client, run_id, config.model_dump(mode="json"))
    tracking.log_metrics(client, run_id, [{"step": training.figures["step"], **metrics}])
    client.log_artifact(run_id, _local(evaluation.output("report")), "evaluation")
    _log_dataset(client, run_id, shards)
    model_uri = _log_model(config, shards, training, evaluation, run_id)
    name = config.registry.name
    version = _create_version(client, config, model_uri, run_id, shards, training, evaluation)
    alias, reason = _promote(client, config, version, metrics, evaluation_data(shards))
    client.set_model_version_tag(name, version, "unetflow.gate", f"{alias}: {reason}")
    logger.info("register: version %s of %s is %s: %s", version, name, alias, reason)
    attempt.figures |= {
        "model_name": name,
        "model_version": int(version),
        "model_uri": f"models:/{name}@{alias}",
        "alias": alias,
        "reason": reason,
        "run_id": run_id,
        "tracking_uri": tracking.tracking_uri(config.storage_uri),
    }


def evaluation_data(shards: Record) -> str:
    """Digest of the held-out samples: metrics compare only where it is equal."""
    from data_pipelines.digests import digest_of

    index = read_table(shards.output("index")).to_pylist()
    return digest_of(sorted(row["digest"] for row in index if row["split"] == "val"))


def _create_version(
    client: MlflowClient,
    config: SegmentationConfig,
    model_uri: str,
    run_id: str,
    shards: Record,
    training: Record,
    evaluation: Record,
) -> str:
    from mlflow.exceptions import MlflowException

    name = config.registry.name
    try:
        client.create_registered_model(name, description="Segmentation U-Nets trained by unetflow.")
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    tags = {
        "unetflow.shard_key": shards.key,
        "unetflow.shard_digest": shards.digest,
        "unetflow.train_key": training.key,
        "unetflow.train_digest": training.digest,
        "unetflow.evaluate_key": evaluation.key,
        "unetflow.evaluate_digest": evaluation.digest,
        EVALUATION_TAG: evaluation_data(shards),
        "unetflow.metrics": json.dumps(_comparable(evaluation.figures["metrics"], config.registry.compare_metric)),
    }
    card = model_card(config, shards, training, evaluation)
    source = client.create_model_version(name, model_uri, run_id, tags=tags, description=card)
    return str(source.version)


def _comparable(metrics: dict[str, float], compare: str) -> dict[str, float]:
    """What the gate may be asked for later: tags are short, so the classes' own figures stay in the run."""
    return {name: value for name, value in metrics.items() if "/" not in name or name == compare}


def _promote(
    client: MlflowClient, config: SegmentationConfig, version: str, metrics: dict[str, float], data_digest: str
) -> tuple[str, str]:
    from mlflow.exceptions import MlflowException

    name = config.registry.name
    champion: dict[str, float] | None = None
    try:
        current = client.get_model_version_by_alias(name, CHAMPION)
        if current.tags.get(EVALUATION_TAG) == data_digest:
            champion = json.loads(current.tags["unetflow.metrics"])
    except MlflowException:
        pass  # no champion yet
    alias, reason = decide_alias(metrics, champion, config.registry.min_metrics, config.registry.compare_metric)
    client.set_registered_model_alias(name, alias, version)
    return alias, reason


def _log_model(config: SegmentationConfig, shards: Record, training: Record, evaluation: Record, run_id: str) -> str:
    """Log the pyfunc with weights, bundle and the code it needs; returns its URI."""
    import importlib.metadata

    import mlflow

    from flows.segmenter import WEIGHTS, Bundle, write_bundle

    packages = Path(__file__).resolve().parent.parent
    with tempfile.TemporaryDirectory(prefix="unetflow-model-") as folder:
        bundle = Path(folder) / "bundle"
        write_bundle(bundle, Bundle.model_validate(build_bundle(config, shards)))
        storage.copy(training.output("weights"), str(bundle / WEIGHTS))
        with mlflow.start_run(run_id=run_id):
            info = mlflow.pyfunc.log_model(
                name=config.registry.name,
                python_model=str(packages / "flows" / "registered_segmenter.py"),
                artifacts={"bundle": str(bundle)},
                code_paths=[str(packages / name) for name in ("data_pipelines", "unet_models", "flows")],
                signature=_signature(),
                input_example=_input_example(config, shards),
                pip_requirements=[
                    "mlflow==" + importlib.metadata.version("mlflow"),
                    *(f"{name}=={importlib.metadata.version(name).split('+')[0]}" for name in REQUIREMENTS),
                ],
                metadata={"train_key": training.key, "evaluate_key": evaluation.key},
            )
    return info.model_uri


def _signature() -> ModelSignature:
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, Schema
    from mlflow.types.schema import AnyType

    return ModelSignature(
        inputs=Schema(
            [
                ColSpec("string", "path", required=False),
                ColSpec(AnyType(), "image", required=False),
                ColSpec("string", "output", required=False),
            ]
        ),
        outputs=Schema([ColSpec(AnyType())]),
    )


def _input_example(config: SegmentationConfig, shards: Record) -> pd.DataFrame:
    """A tiny image of zeros: it shows the shape of a request, and MLflow tries the model on it."""
    import pandas as pd

    shape = (len(shards.figures["channels"]), *(min(size, 8) for size in config.train.patch_size))
    return pd.DataFrame({"image": [np.zeros(shape).tolist()]})


def _log_dataset(client: MlflowClient, run_id: str, shards: Record) -> None:
    from mlflow.entities import Dataset, DatasetInput, InputTag

    figures = shards.figures
    client.log_inputs(
        run_id,
        datasets=[
            DatasetInput(
                Dataset(
                    name=figures["dataset"],
                    digest=shards.digest[:36],
                    source_type="local",
                    source=json.dumps({"uri": shards.output("index")}),
                    profile=json.dumps({"num_train": figures["num_train"], "num_val": figures["num_val"]}),
                ),
                [InputTag("mlflow.data.context", "training")],
            )
        ],
    )


def model_card(config: SegmentationConfig, shards: Record, training: Record, evaluation: Record) -> str:
    """Markdown that says what the model is, what it was trained on, how good it is and how to use it."""
    metrics = evaluation.figures["metrics"]
    figures = shards.figures
    classes = [name for name, value in figures["classes"].items() if value]
    columns = ("dice", "iou", "hd95_mm", "surface_dice")
    table = ["| class | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    for name in [*classes, "mean"]:
        suffix = "" if name == "mean" else f"/{name}"
        cells = [f"{metrics.get(column + suffix, float('nan')):.4f}" for column in columns]
        table.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(
        [
            f"# {config.registry.name}",
            f"A {config.data.ndim}-D U-Net that segments {', '.join(classes)} in {', '.join(figures['channels'])} "
            f"images. Trained for {training.figures['step']} steps on {figures['num_train']} cases of "
            f"{figures['dataset']}, scored on {figures['num_val']} held-out cases in their original geometry "
            f"(surface Dice at {config.evaluate.tolerance_mm:g} mm).",
            "",
            *table,
            "",
            "```python",
            "import mlflow",
            f'model = mlflow.pyfunc.load_model("models:/{config.registry.name}@champion")',
            'labels = model.predict({"path": ["image.nii.gz"]})[0]      # label map in the file\'s own geometry',
            "```",
            f"Labels: {', '.join(f'{value} {name}' for name, value in figures['classes'].items())}. "
            "Not a medical device.",
        ]
    )


def _is_registered(record: Record, root: str) -> bool:
    from flows import tracking

    try:
        tracking.connect(root).get_model_version(record.figures["model_name"], str(record.figures["model_version"]))
    except Exception as error:  # whatever the server says: without the version, the stage has to run
        logger.warning("register: the recorded model version is not in the registry (%s); it runs again", error)
        return False
    return True


def _local(uri: str) -> str:
    if storage.is_local(uri):
        return str(storage.local_path(uri))
    path = storage.cache_folder() / "artifacts" / uri.rsplit("/", 1)[-1]
    storage.copy(uri, str(path))
    return str(path)
