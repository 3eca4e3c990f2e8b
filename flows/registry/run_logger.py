"""A training's metrics on their way to MLflow, from a thread of its own: a slow server delays nothing.

What the server does not take in time is in the record of the training all the same, and is logged at registration
(``complete_run``).
"""

from __future__ import annotations

import json
import logging
import os
import threading
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

from data_pipelines import storage
from data_pipelines.errors import first_line
from flows.config.environment import environment
from flows.config.pipeline import PipelineConfig
from flows.config.run_id import run_tags
from flows.config.specs import RegistrySpec
from flows.registry import tracking
from flows.stages.record import Figures, Record

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric

logger = logging.getLogger(__name__)

CURVES = "curves"
"""Output of a training: the rows that it reported, as JSON."""
WHOLE_RUN = 0
"""Step of metrics that are of a training as a whole."""
MAX_WAITING = 100_000
"""Values that wait for the server; older ones are left to the registration."""
RETRY_SECONDS = 10.0
"""Time between two attempts to reach a server that failed."""
CLOSE_SECONDS = 5.0
"""Time that the end of a training waits for a server. A file of this machine is waited for until it is written."""
SHORT_RETRIES = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_HTTP_REQUEST_TIMEOUT": "10"}
"""Patience of MLflow's client, which reads it at each request; its defaults keep a request alive for minutes."""


class RunLogger:
    """``with RunLogger(config, stage_key) as run:`` logs to the MLflow run of a stage; nobody waits for it."""

    def __init__(self, config: PipelineConfig, stage_key: str) -> None:
        self.run_id: str | None = None
        self._config, self._stage_key = config, stage_key
        self._uri = tracking.tracking_uri(config.storage_uri)
        self._client: MlflowClient | None = None
        self._metrics: list[Metric] = []
        self._tags = run_tags()
        self._lock = threading.Lock()
        self._news, self._closing = threading.Event(), threading.Event()
        self._news.set()  # the run is opened at once
        self._status = ""
        """State that the run ends in; empty while it goes on."""
        self._failing = False
        self._thread = threading.Thread(target=self._run, name="mlflow", daemon=True)
        self._short_retries = environment({name: os.environ.get(name, short) for name, short in SHORT_RETRIES.items()})

    @property
    def num_waiting(self) -> int:
        """Number of values that the server has not confirmed."""
        return len(self._metrics)

    def __enter__(self) -> Self:
        tracking.import_mlflow(self._uri)  # not in the thread: an interpreter that ends in mid-import crashes
        self._short_retries.__enter__()
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._status = end_status(kind)
        self._closing.set()
        self._news.set()
        self._thread.join(CLOSE_SECONDS if self._uri.startswith("http") else None)
        self._short_retries.__exit__(None, None, None)
        if self._thread.is_alive() or self.run_id is None or self._metrics:
            logger.warning("MLflow at %s has not accepted all metrics: the rest is logged at registration", self._uri)

    def log(self, rows: Sequence[Mapping[str, float]]) -> None:
        """Log rows of ``step`` and named values, as of now."""
        metrics = tracking.build_metrics(rows)
        with self._lock:
            self._metrics = (self._metrics + metrics)[-MAX_WAITING:]
        self._news.set()

    def tag(self, tags: Mapping[str, str]) -> None:
        """Set tags of the run."""
        with self._lock:
            self._tags |= tags
        self._news.set()

    def _run(self) -> None:
        while not self._closing.is_set():
            self._news.wait()
            self._news.clear()
            if not self._send():
                self._closing.wait(RETRY_SECONDS)
                self._news.set()
        self._send()  # what came last

    def _send(self) -> bool:
        """Send what waits; False where the server failed, and all of it waits still."""
        with self._lock:
            metrics, tags = list(self._metrics), dict(self._tags)
        try:
            self._send_to(self._open(), metrics, tags)
        except Exception as error:  # any failure of a remote service
            if not self._failing:
                reason = first_line(error, empty=type(error).__name__)
                logger.warning("logging to MLflow failed, training continues: %s", reason)
            self._failing = True
            return False
        if self._failing:
            logger.info("MLflow responds again")
        self._failing = False
        with self._lock:
            sent = set(map(id, metrics))
            self._metrics = [metric for metric in self._metrics if id(metric) not in sent]
            self._tags = {name: value for name, value in self._tags.items() if tags.get(name) != value}
        return True

    def _open(self) -> MlflowClient:
        if self._client is None or self.run_id is None:
            self._client = tracking.use_server(self._uri)
            run_id = open_training_run(self._client, self._config.registry, self._stage_key)
            tracking.log_parameters(self._client, run_id, self._config.model_dump(mode="json"))
            self._client.update_run(run_id, status="RUNNING")  # an earlier attempt ended it
            self.run_id = run_id
        return self._client

    def _send_to(self, client: MlflowClient, metrics: list[Metric], tags: dict[str, str]) -> None:
        assert self.run_id is not None
        tracking.send_metrics(client, self.run_id, metrics)
        if tags:
            tracking.set_tags(client, self.run_id, tags)
        if self._status:
            client.set_terminated(self.run_id, self._status)


def end_status(kind: type[BaseException] | None) -> str:
    """Return MLflow's state of a run that ended with an error of this type, or without one."""
    if kind is None:
        return "FINISHED"
    return "FAILED" if issubclass(kind, Exception) else "KILLED"


def open_training_run(client: MlflowClient, registry: RegistrySpec, stage_key: str) -> str:
    """Return the id of the run of a training, which is created where there is none yet."""
    return tracking.open_run(client, registry.experiment, stage_key, f"{registry.name}-{stage_key[:8]}")


def complete_run(client: MlflowClient, registry: RegistrySpec, record: Record[Figures]) -> int:
    """Log what the MLflow run of a training lacks of its record; return the number of values."""
    rows: list[dict[str, Any]] = json.loads(storage.read_bytes(record.output(CURVES)))
    run_id = open_training_run(client, registry, record.key)
    metrics = tracking.build_metrics([*rows, {"step": WHOLE_RUN, **record.figures.run_metrics()}])
    known = {
        (name, point.step)
        for name in {metric.key for metric in metrics}
        for point in client.get_metric_history(run_id, name)
    }
    missing = [metric for metric in metrics if (metric.key, metric.step) not in known]
    tracking.send_metrics(client, run_id, missing)
    if tags := record.figures.run_tags():
        tracking.set_tags(client, run_id, tags)
    if client.get_run(run_id).info.status != "FINISHED":  # its end is that of the training
        client.set_terminated(run_id)
    if missing:
        logger.info("%s: %d values that MLflow had not accepted are logged now", record.stage, len(missing))
    return len(missing)
