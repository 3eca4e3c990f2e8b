"""Connect to the Ray that ``RAY_ADDRESS`` names, or start one on this machine that ends with this process."""

from __future__ import annotations

import logging
import os
import secrets
import signal
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any

from data_pipelines.cores import count_cpus
from data_pipelines.errors import ConfigError
from flows.cluster.folders import local_parent, ray_folder
from flows.cluster.local_ray import (
    describe_loss,
    require_local_ray,
    shut_down_ray,
    tell_slow_start,
    watch_local_ray,
    without_cluster_servers,
)
from flows.config.environment import environment
from flows.config.loopback import require_loopback
from flows.config.specs import ComputeSpec

LOST_HEAD_SECONDS = 10
"""Time for which the processes of a local Ray, this one among them, look for its head once that is gone: it never comes
back, and they would stay for a minute after a run that was killed."""
API_SERVER, NO_SERVER = "RAY_API_SERVER_ADDRESS", "http://127.0.0.1:9"
"""Variable with the address of Ray's dashboard, which processes of Ray inherit; an address at which nothing listens."""
LOG_LEVEL_LINE = b"Set ray log level from environment variable"
LOOPBACK_ONLY = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
"""Where Ray takes no further nodes, it listens on loopback alone; else on every address, whatever it is told."""
POLL_SECONDS = 0.2
"""A worker's report waits until Ray Train's controller polls for it; with Ray's default of two seconds, a training that
reports every second runs at half its speed."""

logger = logging.getLogger(__name__)

_TOKEN = secrets.token_hex(32)
"""One for the process, whichever of its threads asks first."""


def import_ray() -> None:
    """Import Ray after setting what it reads at import. A local Ray asks every client for a token that only this
    process and its children know."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault("RAY_ENABLE_AUTO_CONNECT", "0")  # a thread that is late would start a Ray with other settings
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", str(POLL_SECONDS))
    if not os.environ.get("UNETFLOW_DEBUG"):
        # Ray's own lines hide ours; its logs are in its session folder, and a worker's exception reaches the driver.
        os.environ.setdefault("RAY_DATA_LOG_LEVEL", "ERROR")
        # Its C++ core reports every actor of Ray Data as an error ("has constructor arguments in the object store").
        os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    address = os.environ.get("RAY_ADDRESS")
    os.environ.setdefault("RAY_TRAIN_PREEMPTION_POLL_INTERVAL_S", "1")  # of five: notices are often of 30 seconds
    if not address and "RAY_AUTH_MODE" not in os.environ:
        # A local Ray switches token authentication on by itself; without this it would write one to ~/.ray, 0644.
        os.environ.setdefault("RAY_AUTH_TOKEN", _TOKEN)
    if not address:
        os.environ.update(LOOPBACK_ONLY)
        os.environ.setdefault("RAY_gcs_rpc_server_reconnect_timeout_s", str(LOST_HEAD_SECONDS))
        # An actor that asks the cloud provider whether this node will be taken away; a process more at every training.
        os.environ.setdefault("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")
    import ray.data
    import ray.train.torch  # noqa: F401


def import_tune() -> Any:
    """Import Ray Tune, which neither prints tables of its own nor writes files per trial that nobody reads."""
    os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
    from ray import tune

    return tune


def connect_ray(num_cpus: int | None = None) -> None:
    """Connect to Ray or start it, once per process. The files of a local one lie in a folder that is this user's alone;
    raises ConfigError where it is not."""
    import_ray()
    import ray

    if ray.is_initialized() and describe_loss():
        shut_down_ray()
    if ray.is_initialized():
        return
    address = os.environ.get("RAY_ADDRESS")
    is_debugged = bool(os.environ.get("UNETFLOW_DEBUG"))
    options: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": is_debugged}
    if not address:
        require_loopback()
        options |= {
            "address": "local",  # else a Ray that somebody else started on this machine would be joined
            "num_cpus": max(num_cpus or 0, count_cpus()),
            "include_dashboard": False,
            "object_store_memory": 512 << 20,
            "_temp_dir": str(ray_folder(local_parent())),
        }
    if not is_debugged:
        ray._private.worker.listen_error_messages = (
            _ignore_messages  # which Ray prints, whatever the levels of its logs
        )
    with (
        # Ray's processes inherit it: whatever asks a dashboard for states finds out at once that there is none.
        environment({} if address else {API_SERVER: NO_SERVER}),
        nullcontext() if address or is_debugged else without_cluster_servers(),
        _without_log_level_line(),
        _own_sigterm_handler(),
        tell_slow_start(),
    ):
        ray.init(**options)
    watch_local_ray()
    ray.data.DataContext.get_current().enable_progress_bars = False  # stages show their own
    logging.getLogger("ray.train").setLevel(logging.WARNING)


def _ignore_messages(*_: object) -> None:
    """Take the place of Ray's thread that prints what its servers say of each other's ends."""


def connect_workers(compute: ComputeSpec) -> None:
    """Connect to Ray or start it. Raises ConfigError where it can never hold the workers: Ray would wait for ever."""
    connect_ray(compute.num_cpus)
    import ray

    available, growing = ray.cluster_resources(), _largest_resources()
    for kind, number in compute.required_resources.items():
        most = max(available.get(kind, 0), growing.get(kind, 0))
        if most < number:
            raise ConfigError(
                f"compute.num_workers={compute.num_workers} needs {number} {kind}s, the Ray cluster has "
                f"{most:g}: lower compute.num_workers or compute.threads_per_worker, or add nodes"
            )
        if available.get(kind, 0) < number:
            logger.info("the cluster has %g of %d %ss: its autoscaler adds nodes", available.get(kind, 0), number, kind)


def _largest_resources() -> Mapping[str, float]:
    """Return what the cluster can grow to by its autoscaler; empty without one."""
    from ray._private import state

    return state.state.get_max_resources_from_cluster_config() or {}


@contextmanager
def use_ray(num_cpus: int | None = None) -> Iterator[None]:
    """``connect_ray`` for the length of the block. Raises LocalRayLostError where a local Ray dies in it."""
    connect_ray(num_cpus)
    with require_local_ray():
        yield


@contextmanager
def use_workers(compute: ComputeSpec) -> Iterator[None]:
    """``connect_workers`` for the length of the block. Raises LocalRayLostError where a local Ray dies in it."""
    connect_workers(compute)
    with require_local_ray():
        yield


def count_free_workers(resources: Mapping[str, float]) -> int:
    """Count the workers, of ``resources`` each, that nodes have room for beside what runs; none on drained nodes."""
    from ray._private import state

    return _count_workers(resources, state.state.available_resources_per_node())


def count_places(resources: Mapping[str, float]) -> int:
    """Count the workers, of ``resources`` each, that nodes could hold if nothing else ran; none on drained nodes."""
    import ray

    return _count_workers(resources, {node["NodeID"]: node["Resources"] for node in ray.nodes() if node["Alive"]})


def _count_workers(resources: Mapping[str, float], nodes: Mapping[str, Mapping[str, float]]) -> int:
    from ray._private import state

    leaving = state.state.get_draining_nodes()
    return sum(
        int(min(has.get(kind, 0) // number for kind, number in resources.items()))
        for node, has in nodes.items()
        if node not in leaving
    )


def own_node_id() -> str:
    """Return Ray's id of the node that this process is connected to."""
    import ray

    return str(ray.get_runtime_context().get_node_id())


@contextmanager
def _own_sigterm_handler() -> Iterator[None]:
    """Keep the handler of SIGTERM that there is: Ray installs one that exits with 15, and below it one that aborts a
    process still alive after three seconds. Where there is none, the exiting one stays."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    except SystemExit as stop:
        if stop.code != signal.SIGTERM:
            raise
        raise SystemExit(128 + signal.SIGTERM) from None
    finally:
        signal.signal(signal.SIGTERM, before if callable(before) else signal.getsignal(signal.SIGTERM))


@contextmanager
def _without_log_level_line() -> Iterator[None]:
    """Drop the line in which Ray's C++ core confirms ``RAY_BACKEND_LOG_LEVEL``: it is written past every log level.

    Whatever else is written to stderr in the block appears when it ends.
    """
    with tempfile.TemporaryFile() as held:
        stderr = os.dup(2)
        os.dup2(held.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
            held.seek(0)
            for line in held:
                if LOG_LEVEL_LINE not in line:
                    os.write(2, line)
