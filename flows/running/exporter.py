"""Metrics of the stages that this process computes, for Prometheus, on a port of loopback."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from data_pipelines.errors import ConfigError
from flows.stages.status import StageStatus, live_statuses

if TYPE_CHECKING:
    from prometheus_client.core import GaugeMetricFamily

logger = logging.getLogger(__name__)

PORT_VARIABLE = "UNETFLOW_METRICS_PORT"
"""Environment variable: TCP port on 127.0.0.1; unset: no metrics are served."""
MAX_PORT = 65535
LABELS = ("run_id", "model", "stage")
GAUGES = {
    "stage_seconds": "Wall time of the stage until now.",
    "step": "Optimizer steps that were reported.",
    "num_steps": "Optimizer steps of the whole training.",
    "steps_per_second": "Recent pace, without validations and checkpoints.",
    "loss": "Training loss.",
    "seconds_left": "Time until the last step.",
    "checkpoint_age_seconds": "Time since the last checkpoint.",
    "goodput_percent": "Share of the wall time that trained.",
    "gpu_memory_bytes": "Peak of the allocated memory of rank 0's GPU.",
}
"""Name without ``unetflow_`` to its help."""


@contextmanager
def serve_metrics() -> Iterator[None]:
    """Serve ``http://127.0.0.1:PORT/metrics`` during the block, where the variable is set.

    Raises ConfigError for a value that is no port. A port that is taken is a warning.
    """
    port = _read_port()
    if port is None:
        yield
        return
    from prometheus_client import CollectorRegistry, start_http_server

    registry = CollectorRegistry(auto_describe=False)
    registry.register(StageCollector())
    try:
        server, thread = start_http_server(port, addr="127.0.0.1", registry=registry)
    except OSError as error:
        logger.warning("no metrics are served: %s=%d: %s; choose another port", PORT_VARIABLE, port, error.strerror)
        yield
        return
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class StageCollector:
    """Collector of prometheus_client: reads the statuses at each request, so that training does nothing for it."""

    def collect(self) -> Iterable[GaugeMetricFamily]:
        """Yield a gauge for each value of each stage that is known."""
        from prometheus_client.core import GaugeMetricFamily

        now = time.time()
        values = [(status, gauge_values(status, now)) for status in live_statuses()]
        for name, about in GAUGES.items():
            gauge = GaugeMetricFamily(f"unetflow_{name}", about, labels=LABELS)
            for status, found in values:
                if (value := found[name]) is not None:
                    gauge.add_metric([getattr(status, label) for label in LABELS], value)
            yield gauge


def gauge_values(status: StageStatus, now: float) -> dict[str, float | None]:
    """Return the value of each gauge at ``now``, in seconds since 1970; None where there is none."""
    has_steps = status.num_steps > 0
    return {
        "stage_seconds": now - status.started,
        "step": status.step if has_steps else None,
        "num_steps": status.num_steps if has_steps else None,
        "steps_per_second": status.steps_per_second,
        "loss": status.loss,
        "seconds_left": status.seconds_left,
        "checkpoint_age_seconds": None if status.checkpoint_at is None else now - status.checkpoint_at,
        "goodput_percent": status.goodput_percent,
        "gpu_memory_bytes": None if status.gpu_memory_gib is None else status.gpu_memory_gib * 2**30,
    }


def _read_port() -> int | None:
    text = os.environ.get(PORT_VARIABLE, "")
    if not text:
        return None
    if not text.isdigit() or not 0 < int(text) <= MAX_PORT:
        raise ConfigError(f"{PORT_VARIABLE}={text}: write a port from 1 to {MAX_PORT}")
    return int(text)
