"""MLflow from one place: the process that runs the pipeline. One run per training, found again by its stage key."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote

from data_pipelines import storage
from data_pipelines.errors import RegistryError
from flows.config.locations import named_tracking_uri, state_folder
from flows.metrics import parse_metric_name

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric

STAGE_KEY_TAG = "unetflow.train_key"
MAX_PARAMETER_LENGTH, MAX_NAME_LENGTH, MAX_TAG_LENGTH = 6000, 250, 5000
PARAMETERS_PER_REQUEST, METRICS_PER_REQUEST = 100, 1000


def tracking_uri(root: str) -> str:
    """Return ``MLFLOW_TRACKING_URI``, else SQLite below the storage (below the user's state for remote storage)."""
    if uri := named_tracking_uri():
        return uri
    folder = storage.local_path(root) if storage.is_local(root) else state_folder()
    folder.mkdir(parents=True, exist_ok=True)
    return f"sqlite:///{folder / 'mlflow.db'}"


def import_mlflow(uri: str) -> None:
    """Import MLflow after setting what it reads at import, for the server at ``uri``."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    os.environ.setdefault("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")
    if uri.startswith("sqlite:///"):
        # Else MLflow makes ./mlruns wherever the command was typed.
        artifacts = Path(uri.removeprefix("sqlite:///")).absolute().with_name("mlartifacts")
        os.environ.setdefault("_MLFLOW_SERVER_ARTIFACT_ROOT", artifacts.as_uri())
    import mlflow  # noqa: F401

    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.WARNING)
    # Tracebacks of a full database and a line per retry of a request: the error reaches whoever asked.
    for name in ("mlflow.store.db.utils", "urllib3.connectionpool"):
        logging.getLogger(name).setLevel(logging.CRITICAL)


def connect(root: str) -> MlflowClient:
    """Return a client of the tracking server and registry that belong to the storage ``root``."""
    return use_server(tracking_uri(root))


def use_server(uri: str) -> MlflowClient:
    """Make the server at ``uri`` this process's, and return a client of it."""
    import_mlflow(uri)
    import mlflow

    mlflow.set_tracking_uri(uri)
    mlflow.set_registry_uri(uri)
    return mlflow.MlflowClient(uri, uri)


def open_run(client: MlflowClient, experiment: str, stage_key: str, name: str) -> str:
    """Return the id of the run that belongs to a stage key; the run is created where there is none yet."""
    found = client.get_experiment_by_name(experiment)
    if found is not None and found.lifecycle_stage != "active":
        raise RegistryError(
            f"experiment {experiment} was deleted in MLflow: `mlflow experiments restore --experiment-id "
            f"{found.experiment_id}` brings it back, or set registry.experiment to another name"
        )
    experiment_id = client.create_experiment(experiment) if found is None else found.experiment_id
    runs = client.search_runs([experiment_id], f"tags.`{STAGE_KEY_TAG}` = '{stage_key}'", max_results=1)
    if runs:
        return str(runs[0].info.run_id)
    return str(client.create_run(experiment_id, run_name=name, tags={STAGE_KEY_TAG: stage_key}).info.run_id)


def shortened(text: str, end: str) -> str:
    """Cut a tag or description that MLflow's database does not hold, such as a card of a hundred classes."""
    return text if len(text) <= MAX_TAG_LENGTH else text[: MAX_TAG_LENGTH - len(end)] + end


def log_parameters(client: MlflowClient, run_id: str, values: Mapping[str, Any]) -> None:
    """Log the resolved configuration, flattened to ``a.b.c``."""
    from mlflow.entities import Param

    known = client.get_run(run_id).data.params
    flat = {name[:MAX_NAME_LENGTH]: str(value)[:MAX_PARAMETER_LENGTH] for name, value in _flatten(values)}
    fresh = [Param(name, value) for name, value in flat.items() if name not in known]  # parameters cannot be rewritten
    for start in range(0, len(fresh), PARAMETERS_PER_REQUEST):
        client.log_batch(run_id, params=fresh[start : start + PARAMETERS_PER_REQUEST])


def build_metrics(rows: Sequence[Mapping[str, float]]) -> list[Metric]:
    """Build MLflow's metrics, as of now, of rows of ``step`` and named values."""
    from mlflow.entities import Metric

    now = int(time.time() * 1000)
    return [
        Metric(mlflow_name(name), float(value), now, int(row["step"]))
        for row in rows
        for name, value in row.items()
        if name != "step"
    ]


def send_metrics(client: MlflowClient, run_id: str, metrics: Sequence[Metric]) -> None:
    """Log metrics, as many per request as MLflow takes. The same ones may be sent twice: MLflow keeps one of each."""
    for start in range(0, len(metrics), METRICS_PER_REQUEST):
        client.log_batch(run_id, metrics=metrics[start : start + METRICS_PER_REQUEST])


def log_metrics(client: MlflowClient, run_id: str, rows: Sequence[Mapping[str, float]]) -> None:
    """Log rows of ``step`` and named values."""
    send_metrics(client, run_id, build_metrics(rows))


def set_tags(client: MlflowClient, run_id: str, tags: Mapping[str, str]) -> None:
    """Set tags of a run; their values are cut off at MLflow's limit."""
    from mlflow.entities import RunTag

    client.log_batch(run_id, tags=[RunTag(name, value[:MAX_TAG_LENGTH]) for name, value in tags.items()])


def mlflow_name(name: str) -> str:
    """Return ``kid/clip-n100`` for ``kid[clip,n=100]``: MLflow accepts no brackets, commas or equals signs.

    The name of a class is encoded reversibly, see ``encode``. Different metrics have different names.
    """
    parsed = parse_metric_name(name)
    protocol = parsed.protocol.replace(",", "-").replace("=", "")
    return "/".join(filter(None, [parsed.phase, parsed.metric.name, protocol, encode(parsed.part)]))


def encode(text: str) -> str:
    """Encode a text for the names of MLflow's metrics and parameters: ``WT+TC`` becomes ``WT:2BTC``.

    Letters, digits, spaces, ``_`` and ``-`` stay; of anything else the UTF-8 bytes become ``:XX``. Dots stay within a
    word: MLflow takes names for paths, in which ``..`` leads out.
    """
    quoted = quote(text, safe=" ").replace("~", "%7E")
    return (quoted if quoted.strip(".") else quoted.replace(".", "%2E")).replace("%", ":")


def decode(text: str) -> str:
    """Decode what ``encode`` wrote."""
    return unquote(text.replace(":", "%"))


def _flatten(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from _flatten(value, f"{prefix}{encode(name)}.")
        else:
            yield prefix + encode(name), value
