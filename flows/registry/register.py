"""Stage ``register``: a candidate and its evaluation to a version in the MLflow registry, champion if it earns it."""

from __future__ import annotations

import importlib.metadata
import json
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from data_pipelines import storage
from data_pipelines.digests import digest_of
from data_pipelines.errors import ConfigError
from data_pipelines.temporary import temporary_folder
from flows.config.pipeline import PipelineConfig
from flows.config.run_id import run_tags
from flows.config.specs import RegistrySpec
from flows.installation import PACKAGES, code_version, source_root
from flows.metrics import parse_metric_name, without_protocol
from flows.registry import tracking
from flows.registry.bundle import BUNDLE_ARTIFACT
from flows.registry.candidate import Candidate, Registrable
from flows.registry.champion import EVALUATION_TAG
from flows.registry.decision import Decision, ask_gate, assign_alias, decision_of
from flows.registry.models import (
    GATE_TAG,
    METRICS_TAG,
    PIPELINE_FACT,
    REGISTER_TAG,
    TAG_PREFIX,
    find_by_alias,
    find_registered,
)
from flows.registry.run_logger import CURVES, complete_run
from flows.stages.attempt import Attempt
from flows.stages.record import EvaluationFigures, Figures, Record
from flows.stages.shards import ShardFigures
from flows.stages.stage import Stage

if TYPE_CHECKING:
    from mlflow import MlflowClient

    from unet_models.formats.trace import Traced

logger = logging.getLogger(__name__)

CARD = "card.md"
"""File of the version's card beside the report."""
REPORT, REPORT_FOLDER = "report", "evaluation"
"""Name of the evaluation's output that is logged to the run, and the folder of all evaluations among its artifacts."""


class RegistrationFigures(Figures):
    """Figures of a registered version."""

    model_name: str
    model_version: int
    model_uri: str
    """``models:/NAME@ALIAS``; ``models:/NAME/VERSION`` where the alias has moved since."""
    alias: str
    """``champion`` or ``challenger``; empty where it has moved since."""
    reason: str
    """Reason of the gate's decision."""
    run_id: str
    tracking_uri: str
    pages: dict[str, str]
    """Addresses of the model's and the report's page in a browser; empty without a server."""


def register_stage(
    config: PipelineConfig, candidate: Candidate, inputs: Sequence[Record[Figures]]
) -> Stage[RegistrationFigures]:
    """Plan the stage. Its effect is in MLflow: a record whose model version is gone is not valid."""
    root = config.storage_uri
    identity = config.registry.model_dump(mode="json") | {"tracking": tracking.tracking_uri(root)}

    def compute(attempt: Attempt) -> RegistrationFigures:
        return _register(config, candidate, attempt)

    def is_registered(record: Record[RegistrationFigures]) -> bool:
        return _is_registered(record, root)

    return Stage("register", identity, tuple(inputs), compute, RegistrationFigures, is_registered, uses_gpu=True)


def write_exports(folder: Path, networks: Mapping[str, Callable[[], Traced]], spec: RegistrySpec) -> None:
    """Export the networks into the model's folder in the formats of ``spec.export``.

    Raises ConfigError where a network cannot be exported; its message says how to register the model without.
    """
    from unet_models.formats.export import export_networks

    started = time.perf_counter()
    try:
        export_networks(folder, networks, spec.export)
    except Exception as error:  # torch raises many kinds
        raise ConfigError(
            f"registry.export: {', '.join(networks)} cannot be written as {' and '.join(spec.export)}: {error}\n"
            "To register the model without these files: --set registry.export=[]"
        ) from error
    logger.info("register: exported %s in %.1f s", ", ".join(networks), time.perf_counter() - started)


def _register(config: PipelineConfig, candidate: Candidate, attempt: Attempt) -> RegistrationFigures:
    name, root = config.registry.name, config.storage_uri
    client = tracking.connect(root)
    found = find_registered(client, name, attempt.key)  # by an attempt that ended before its record
    version = str(found.version) if found else None
    kept = decision_of(found) if found else None
    # First: a champion that cannot be drawn costs no version.
    decision = kept or ask_gate(client, config, candidate, attempt, version)
    run_id = _log_run(client, config, candidate)
    if version is None:
        lineage = {f"{name}_key": record.key for name, record in candidate.named_lineage().items()}
        model_id = log_model(config.registry.name, config.pipeline, candidate, run_id, lineage)
        tags = _tags(config, candidate) | {REGISTER_TAG: attempt.key}
        version = create_version(client, name, candidate, model_id, run_id, tags)
    if kept is None:  # else the alias may have been moved since, by a rollback: it stays where it is
        decision = assign_alias(client, config, candidate, attempt, version, decision)
        _log_decision(client, name, version, run_id, candidate, attempt, decision)
    server = tracking.tracking_uri(root)
    figures = RegistrationFigures(
        model_name=name,
        model_version=int(version),
        model_uri=f"models:/{name}@{decision.alias}",
        alias=decision.alias,
        reason=decision.reason,
        run_id=run_id,
        tracking_uri=server,
        pages=_pages(client, server, run_id, f"{name}/versions/{version}", candidate.evaluation),
    )
    figures = figures if kept is None else refresh_figures(figures, root)
    logger.info("register: version %s of %s is %s: %s", version, name, figures.alias or "as it was", figures.reason)
    return figures


def _log_run(client: MlflowClient, config: PipelineConfig, candidate: Candidate) -> str:
    """Log parameters, metrics, report and data set, and what the trainings could not log; return the run's id."""
    registry, evaluation = config.registry, candidate.evaluation
    for record in candidate.lineage:
        if CURVES in record.outputs:
            complete_run(client, registry, record)
    run_id = tracking.open_run(client, registry.experiment, candidate.run_key, registry.name)
    tracking.log_parameters(client, run_id, config.model_dump(mode="json"))
    tracking.log_metrics(client, run_id, [{"step": candidate.step, **evaluation.figures.metrics}])
    if REPORT in evaluation.outputs:
        with storage.local_file(evaluation.output(REPORT)) as report:
            client.log_artifact(run_id, str(report), _report_folder(evaluation))
    if candidate.dataset is not None:
        _log_dataset(client, run_id, candidate.dataset)
    return run_id


def _log_decision(
    client: MlflowClient,
    name: str,
    version: str,
    run_id: str,
    candidate: Candidate,
    attempt: Attempt,
    decision: Decision,
) -> None:
    """Write the decision into the version's tags and card, and what it rests on beside the report."""
    said = decision.text
    card = f"{candidate.build_card()}\n\nAt registration: {said}."
    client.log_text(run_id, card, f"{_report_folder(candidate.evaluation)}/{CARD}")
    cut = f"\n\nCut: the whole card is {CARD} beside the report."
    client.update_model_version(name, version, tracking.shortened(card, cut))
    for output in attempt.outputs:
        with storage.local_file(attempt.output(output)) as file:
            client.log_artifact(run_id, str(file), _report_folder(candidate.evaluation))
    # Last: a version with this tag is decided on, and another attempt writes nothing more.
    client.set_model_version_tag(name, version, GATE_TAG, tracking.shortened(said, "..."))


def _report_folder(evaluation: Record[EvaluationFigures]) -> str:
    """Return the folder of an evaluation among the run's artifacts: versions of one training share a run."""
    return f"{REPORT_FOLDER}/{evaluation.key[:12]}"


def _tags(config: PipelineConfig, candidate: Candidate) -> dict[str, str]:
    """Return the version's lineage and metrics."""
    named = candidate.named_lineage()
    tags = {f"{TAG_PREFIX}{name}_key": record.key for name, record in named.items()}
    tags |= {f"{TAG_PREFIX}{name}_digest": record.digest for name, record in named.items()}
    comparable = _comparable(candidate.evaluation.figures.metrics, config.registry.compare_metric)
    tags |= run_tags()
    tags |= {name: f"{seconds:.0f}" for name, seconds in _cost(candidate).items()}
    return tags | {
        f"{TAG_PREFIX}code": code_version(),
        f"{TAG_PREFIX}config_digest": digest_of(config.model_dump(mode="json")),
        EVALUATION_TAG: candidate.evaluation_data,
        METRICS_TAG: json.dumps(comparable),
    }


def _cost(candidate: Candidate) -> dict[str, float]:
    """Return the CPU- and GPU-seconds of all stages that the version was made by, whichever run computed them.

    Several of its networks may share a stage, which counts once.
    """
    records = {record.key: record for record in candidate.lineage}.values()
    return {
        f"{TAG_PREFIX}cpu_seconds": sum(record.cpu_seconds for record in records),
        f"{TAG_PREFIX}gpu_seconds": sum(record.gpu_seconds for record in records),
    }


def _comparable(metrics: Mapping[str, float], compare: str) -> dict[str, float]:
    """Return the metrics that the gate may be asked for later: tags are short, so the parts' own stay in the run."""
    return {
        name: value
        for name, value in metrics.items()
        if not parse_metric_name(name).part or compare in (name, without_protocol(name))
    }


def _pages(
    client: MlflowClient, server: str, run_id: str, model: str, evaluation: Record[EvaluationFigures]
) -> dict[str, str]:
    if not server.startswith("http"):
        return {}
    pages = {"model": f"{server}/#/models/{model}"}
    if REPORT in evaluation.outputs:
        experiment = client.get_run(run_id).info.experiment_id
        file = f"{_report_folder(evaluation)}/{evaluation.output(REPORT).rsplit('/', 1)[-1]}"
        pages["report"] = f"{server}/#/experiments/{experiment}/runs/{run_id}/artifacts/{file}"
    return pages


def create_version(
    client: MlflowClient, name: str, model: Registrable, model_id: str, run_id: str, tags: dict[str, str]
) -> str:
    """Create a version of a logged model, and the registered model where it is the first; return its number."""
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(name, description=model.description)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    version = client.create_model_version(name, f"models:/{model_id}", run_id, tags=tags, model_id=model_id)
    return str(version.version)


def log_model(name: str, pipeline: str, model: Registrable, run_id: str, lineage: Mapping[str, str]) -> str:
    """Log the pyfunc with its files and the code it needs to a run; return its id."""
    import mlflow

    versions = {each: importlib.metadata.version(each).split("+")[0] for each in ("mlflow", *model.requirements)}
    with temporary_folder("model") as folder:
        files = folder / BUNDLE_ARTIFACT
        files.mkdir()
        described = model.write_files(files)
        with mlflow.start_run(run_id=run_id):
            info = mlflow.pyfunc.log_model(
                name=name,
                python_model=str(model.code),
                artifacts={BUNDLE_ARTIFACT: str(files)},
                code_paths=[str(source_root() / package) for package in PACKAGES],
                pip_requirements=[f"{each}=={version}" for each, version in versions.items()],
                metadata={PIPELINE_FACT: pipeline, **lineage, **model.metadata},
                signature=described.signature,
                input_example=described.input_example,
            )
    return str(info.model_id)


def _log_dataset(client: MlflowClient, run_id: str, shards: Record[ShardFigures]) -> None:
    from mlflow.entities import Dataset, DatasetInput, InputTag

    figures = shards.figures
    dataset = Dataset(
        name=figures.dataset,
        digest=shards.digest[:36],
        source_type="local",
        source=json.dumps({"uri": shards.output("index")}),
        profile=json.dumps({"num_train": figures.num_train, "num_val": figures.num_val}),
    )
    client.log_inputs(run_id, datasets=[DatasetInput(dataset, [InputTag("mlflow.data.context", "training")])])


def refresh_figures(figures: RegistrationFigures, root: str) -> RegistrationFigures:
    """Return the figures of a registration that is a cache hit: its alias may name another version by now."""
    name, version = figures.model_name, figures.model_version
    holder = find_by_alias(tracking.connect(root), name, figures.alias)
    if holder is not None and int(holder.version) == version:
        return figures
    now = "no version" if holder is None else f"version {holder.version}"
    reason = f"{figures.alias} at registration, which is {now} now: {figures.reason}"
    return figures.model_copy(update={"model_uri": f"models:/{name}/{version}", "alias": "", "reason": reason})


def _is_registered(record: Record[RegistrationFigures], root: str) -> bool:
    """Tell whether the recorded version exists; a registry that was begun anew has others of the same numbers.

    Raises MlflowException where the registry does not answer, or refuses: then nobody knows.
    """
    name, number = record.figures.model_name, str(record.figures.model_version)
    client = tracking.connect(root)
    from mlflow.exceptions import MlflowException

    try:
        version = client.get_model_version(name, number)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        logger.warning("register: the recorded model version is not in the registry (%s); the stage runs again", error)
        return False
    if version.tags.get(REGISTER_TAG, record.key) == record.key:  # versions of earlier releases have no tag
        return True
    logger.warning("register: version %s of %s now belongs to another registration; the stage runs again", number, name)
    return False
