"""Stage ``register``: checkpoint and scores -> a model in the MLflow registry, champion if it earns it."""

from __future__ import annotations

import json
import logging
import math
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data_pipelines import storage
from data_pipelines.digests import digest_of
from data_pipelines.errors import UserError
from data_pipelines.shards.index import read_table
from flows.config.pipeline import Config
from flows.installation import code_version
from flows.registry.models import CHAMPION, promote
from flows.metrics import split_name, without_protocol
from flows.config.specs import RegistrySpec
from flows.stages.attempt import Attempt
from flows.stages.record import Record
from flows.stages.stage import Stage

if TYPE_CHECKING:
    from mlflow import MlflowClient

    from unet_models.formats.export import Traced

logger = logging.getLogger(__name__)

CHALLENGER = "challenger"
REPORT_FOLDER = "evaluation"
"""Of the run's artifacts."""
EVALUATION_TAG = "unetflow.evaluation_data"
LESS_IS_BETTER = {"frechet_distance", "fid", "kid", "hd95_mm"}


@dataclass(frozen=True, slots=True)
class Candidate:
    """What is to be registered."""

    description: str
    """Of the registered model, whatever its version."""
    code: str
    """File below ``flows`` that MLflow runs to make the model (models from code)."""
    requirements: tuple[str, ...]
    """Distributions that the code imports; their versions are those the model was evaluated with."""
    default_metric: str
    """Compared with the champion's where the config names none."""
    evaluation_data: str
    """Digest of all that metrics depend on beside the model: they compare only where it is equal."""
    card: Callable[[], str]
    """Markdown that says what the model is, how good it is and how to use it."""
    prepare: Callable[[Path], dict[str, Any]]
    """Writes the model's files into a folder; returns ``signature`` and ``input_example``."""


def register(config: Config, candidate: Candidate, shards: Record, *inputs: Record) -> Stage:
    """Plan the stage; among the ``inputs`` are the records of ``train`` and ``evaluate``.

    Its effect lies in MLflow: a record whose model version is gone does not hold any more.
    """
    from flows.registry.tracking import tracking_uri

    root = config.storage_uri
    identity = config.registry.model_dump(mode="json") | {"tracking": tracking_uri(root)}

    def compute(attempt: Attempt) -> None:
        _register(config, candidate, {record.stage: record for record in (shards, *inputs)}, attempt)

    return Stage("register", identity, inputs, compute, lambda record: _is_registered(record, root))


def write_exports(folder: Path, networks: Mapping[str, Callable[[], Traced]], spec: RegistrySpec) -> None:
    """Write the networks into the model's folder in the formats of ``spec.export``.

    Raises UserError where a network cannot be exported; its message says how to register the model without.
    """
    from unet_models.formats.export import export_networks

    started = time.perf_counter()
    try:
        export_networks(folder, networks, spec.export)
    except Exception as error:  # torch raises many kinds
        raise UserError(
            f"registry.export: {', '.join(networks)} cannot be written as {' and '.join(spec.export)}: {error}\n"
            "To register the model without these files: --set registry.export=[]"
        ) from error
    logger.info("register: exported %s in %.1f s", ", ".join(networks), time.perf_counter() - started)


def decide_alias(
    metrics: Mapping[str, float], champion: Mapping[str, float] | None, spec: RegistrySpec, default_metric: str
) -> tuple[str, str]:
    """(alias, reason): the gate. ``champion`` holds its metrics on the same evaluation data, if it has any."""
    for name, least in spec.min_metrics.items():
        if not find_metric(metrics, name) >= least:
            return CHALLENGER, f"{name} is {find_metric(metrics, name):.4f}, below the threshold {least}"
    for name, most in spec.max_metrics.items():
        if not find_metric(metrics, name) <= most:
            return CHALLENGER, f"{name} is {find_metric(metrics, name):.4f}, above the threshold {most}"
    name = spec.compare_metric or default_metric
    ours = find_metric(metrics, name)
    if math.isnan(ours):
        return CHALLENGER, f"{name} was not measured, so nothing can be compared; there are {sorted(metrics)}"
    if champion is None:
        return CHAMPION, "thresholds met, and no champion was evaluated on the same data"
    theirs = find_metric(champion, name)
    sign = -1 if split_name(name)[0] in LESS_IS_BETTER else 1
    if sign * ours > sign * theirs or math.isnan(theirs):  # a champion without this metric has nothing to defend
        return CHAMPION, f"{name} {ours:.4f} beats the champion's {theirs:.4f} on the same data"
    return CHALLENGER, f"{name} {ours:.4f} does not beat the champion's {theirs:.4f} on the same data"


def find_metric(metrics: Mapping[str, float], name: str) -> float:
    """The value under ``name``, or under ``name[...]`` with whatever extractor and N; NaN where there is none."""
    if name in metrics:
        return metrics[name]
    return next((value for found, value in metrics.items() if without_protocol(found) == name), float("nan"))


def _register(config: Config, candidate: Candidate, records: dict[str, Record], attempt: Attempt) -> None:
    from flows.registry import tracking

    shards, training, evaluation = (records[stage] for stage in ("shard", "train", "evaluate"))

    client = tracking.connect(config.storage_uri)
    name, root = config.registry.name, config.storage_uri
    metrics: dict[str, float] = evaluation.figures["metrics"]
    run_id = tracking.open_run(client, root, config.registry.experiment, training.key, name)
    tracking.log_parameters(client, run_id, config.model_dump(mode="json"))
    tracking.log_metrics(client, run_id, [{"step": training.figures["step"], **metrics}])
    with storage.local_file(evaluation.output("report")) as report:
        client.log_artifact(run_id, str(report), REPORT_FOLDER)
    _log_dataset(client, run_id, shards)
    model_id = _log_model(config, candidate, training, evaluation, run_id)
    data = candidate.evaluation_data
    tags = {f"unetflow.{stage}_key": record.key for stage, record in records.items()}
    tags |= {f"unetflow.{stage}_digest": record.digest for stage, record in records.items()}
    tags |= {"unetflow.code": code_version(), "unetflow.config_digest": digest_of(config.model_dump(mode="json"))}
    tags |= {EVALUATION_TAG: data, "unetflow.metrics": json.dumps(_comparable(metrics, config.registry.compare_metric))}
    version = _create_version(client, name, candidate, model_id, run_id, tags)
    alias, reason = _promote(client, config, candidate, version, metrics, data)
    client.set_model_version_tag(name, version, "unetflow.gate", f"{alias}: {reason}")
    logger.info("register: version %s of %s is %s: %s", version, name, alias, reason)
    attempt.figures |= {
        "model_name": name,
        "model_version": int(version),
        "model_uri": f"models:/{name}@{alias}",
        "alias": alias,
        "reason": reason,
        "run_id": run_id,
        "tracking_uri": tracking.tracking_uri(root),
        "pages": _pages(client, tracking.tracking_uri(root), run_id, f"{name}/versions/{version}", evaluation),
    }


def _pages(client: MlflowClient, server: str, run_id: str, model: str, evaluation: Record) -> dict[str, str]:
    """Where a browser sees the model and the report; empty without a server."""
    if not server.startswith("http"):
        return {}
    experiment = client.get_run(run_id).info.experiment_id
    report = f"{REPORT_FOLDER}/{evaluation.output('report').rsplit('/', 1)[-1]}"
    return {
        "model": f"{server}/#/models/{model}",
        "report": f"{server}/#/experiments/{experiment}/runs/{run_id}/artifacts/{report}",
    }


def held_out_digest(shards: Record) -> str:
    """Digest of the held-out samples."""
    index = read_table(shards.output("index"), columns=["digest", "split"]).to_pylist()
    return digest_of(sorted(row["digest"] for row in index if row["split"] == "val"))


def _create_version(
    client: MlflowClient, name: str, candidate: Candidate, model_id: str, run_id: str, tags: dict[str, str]
) -> str:
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(name, description=candidate.description)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    source = client.create_model_version(
        name, f"models:/{model_id}", run_id, tags=tags, description=candidate.card(), model_id=model_id
    )
    return str(source.version)


def _comparable(metrics: dict[str, float], compare: str) -> dict[str, float]:
    """What the gate may be asked for later: tags are short, so the parts' own figures stay in the run."""
    return {name: value for name, value in metrics.items() if "/" not in name or name == compare}


def _promote(
    client: MlflowClient,
    config: Config,
    candidate: Candidate,
    version: str,
    metrics: dict[str, float],
    data_digest: str,
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
    alias, reason = decide_alias(metrics, champion, config.registry, candidate.default_metric)
    if alias == CHAMPION:
        promote(client, name, version)
    else:
        client.set_registered_model_alias(name, alias, version)
    return alias, reason


def _log_model(config: Config, candidate: Candidate, training: Record, evaluation: Record, run_id: str) -> str:
    """Log the pyfunc with its files and the code it needs; returns its id."""
    import importlib.metadata

    import mlflow

    packages = Path(__file__).resolve().parent.parent
    with tempfile.TemporaryDirectory(prefix="unetflow-model-") as folder:
        files = Path(folder) / "bundle"
        files.mkdir()
        described = candidate.prepare(files)
        with mlflow.start_run(run_id=run_id):
            info = mlflow.pyfunc.log_model(
                name=config.registry.name,
                python_model=str(packages / "flows" / candidate.code),
                artifacts={"bundle": str(files)},
                code_paths=[str(packages / name) for name in ("data_pipelines", "unet_models", "flows")],
                pip_requirements=[
                    "mlflow==" + importlib.metadata.version("mlflow"),
                    *(f"{name}=={importlib.metadata.version(name).split('+')[0]}" for name in candidate.requirements),
                ],
                metadata={"train_key": training.key, "evaluate_key": evaluation.key},
                **described,
            )
    return str(info.model_id)


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


def _is_registered(record: Record, root: str) -> bool:
    from flows.registry import tracking

    try:
        tracking.connect(root).get_model_version(record.figures["model_name"], str(record.figures["model_version"]))
    except Exception as error:  # whatever the server says: without the version, the stage has to run
        logger.warning("register: the recorded model version is not in the registry (%s); it runs again", error)
        return False
    return True
