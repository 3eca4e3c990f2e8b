"""MLflow from one place: the process that runs the flow. One run per training, found again by its stage key."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data_pipelines import storage
from flows.config.locations import state_folder

if TYPE_CHECKING:
    from mlflow import MlflowClient

logger = logging.getLogger(__name__)

STAGE_KEY_TAG = "unetflow.train_key"


def tracking_uri(root: str) -> str:
    """``MLFLOW_TRACKING_URI``, else SQLite under the storage folder (under the user's state for remote storage)."""
    if uri := os.environ.get("MLFLOW_TRACKING_URI"):
        return uri
    folder = storage.local_path(root) if storage.is_local(root) else state_folder()
    folder.mkdir(parents=True, exist_ok=True)
    return f"sqlite:///{folder / 'mlflow.db'}"


def import_mlflow(root: str) -> None:
    """Import MLflow after setting what it reads at import."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    os.environ.setdefault("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")
    if (uri := tracking_uri(root)).startswith("sqlite:///"):
        # Else MLflow makes ./mlruns wherever the command was typed.
        artifacts = Path(uri.removeprefix("sqlite:///")).absolute().with_name("mlartifacts")
        os.environ.setdefault("_MLFLOW_SERVER_ARTIFACT_ROOT", artifacts.as_uri())
    import mlflow  # noqa: F401

    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.WARNING)


def connect(root: str) -> MlflowClient:
    """A client of the tracking server and registry that belong to ``root``."""
    import_mlflow(root)
    import mlflow

    uri = tracking_uri(root)
    mlflow.set_tracking_uri(uri)
    mlflow.set_registry_uri(uri)
    return mlflow.MlflowClient(uri, uri)


def open_run(client: MlflowClient, root: str, experiment: str, train_key: str, name: str) -> str:
    """Id of the run that belongs to this training, made where there is none yet."""
    found = client.get_experiment_by_name(experiment)
    experiment_id = client.create_experiment(experiment) if found is None else found.experiment_id
    runs = client.search_runs([experiment_id], f"tags.`{STAGE_KEY_TAG}` = '{train_key}'", max_results=1)
    if runs:
        return runs[0].info.run_id
    return client.create_run(experiment_id, run_name=name, tags={STAGE_KEY_TAG: train_key}).info.run_id


def log_parameters(client: MlflowClient, run_id: str, values: Mapping[str, Any]) -> None:
    """The resolved config, flattened to ``a.b.c``."""
    from mlflow.entities import Param

    known = client.get_run(run_id).data.params
    flat = {name: str(value)[:6000] for name, value in _flatten(values)}
    fresh = [Param(name, value) for name, value in flat.items() if name not in known]  # parameters cannot be rewritten
    for start in range(0, len(fresh), 100):
        client.log_batch(run_id, params=fresh[start : start + 100])


def log_metrics(client: MlflowClient, run_id: str, rows: Sequence[Mapping[str, float]]) -> None:
    """Rows of ``step`` and named figures."""
    import time

    from mlflow.entities import Metric

    now = int(time.time() * 1000)
    metrics = [
        Metric(metric_name(name), float(value), now, int(row["step"]))
        for row in rows
        for name, value in row.items()
        if name != "step"
    ]
    for start in range(0, len(metrics), 1000):
        client.log_batch(run_id, metrics=metrics[start : start + 1000])


def metric_name(name: str) -> str:
    """``kid[clip,n=100]`` -> ``kid/clip-n100``: MLflow takes neither brackets, commas nor equals signs."""
    return name.replace("[", "/").replace("]", "").replace(",", "-").replace("=", "")


@contextmanager
def going_on_without(what: str) -> Iterator[None]:
    """Tracking is worth having, not worth losing a training for: log the failure and go on."""
    try:
        yield
    except Exception as error:  # any failure of a remote service
        logger.warning("%s failed, going on without it: %s", what, error)


def _flatten(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from _flatten(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value
