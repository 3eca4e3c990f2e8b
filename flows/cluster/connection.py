"""The Ray that stages run on: the one ``RAY_ADDRESS`` names, else one started on this machine and ended with it."""

from __future__ import annotations

import logging
import os
import secrets
import signal
import threading
from collections.abc import Iterator, Sequence
from typing import Any
from unittest import mock

from data_pipelines import storage
from data_pipelines.errors import UserError
from flows.config.specs import ComputeSpec

LONGEST_TEMP_FOLDER = 40
"""Ray puts Unix sockets below its folder, 64 bytes further down, and the kernel limits their paths to 107 bytes."""
NOTHING_LISTENS = "http://127.0.0.1:9"
POLL_SECONDS = 0.2
"""A worker's report waits until Ray Train's controller asks for it; with Ray's own two seconds, training that reports
every second runs at half its pace."""

_TOKEN = secrets.token_hex(32)
"""One for the process, whichever of its threads asks first."""


def import_ray() -> None:
    """Import Ray after setting what it reads at import. A local Ray asks every client for a token that only this
    process and its children know."""
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")  # of transformers: networks here load in milliseconds
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", str(POLL_SECONDS))
    if not os.environ.get("UNETFLOW_DEBUG"):
        # Ray's own lines drown ours; its logs lie in its session folder, and a worker's exception reaches the driver.
        os.environ.setdefault("RAY_DATA_LOG_LEVEL", "ERROR")
        # Its C++ core calls every actor of Ray Data an error ("has constructor arguments in the object store").
        os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    address = os.environ.get("RAY_ADDRESS")
    if not address and "RAY_AUTH_MODE" not in os.environ:
        # A local Ray switches token authentication on by itself; without this it would write one to ~/.ray, 0644.
        os.environ.setdefault("RAY_AUTH_TOKEN", _TOKEN)
    import ray.data
    import ray.train.torch  # noqa: F401


def ensure_ray(num_cpus: int | None = None) -> None:
    """Connect to Ray or start it, once per process. A local one keeps its files in the user's cache folder where the
    path is short enough."""
    import_ray()
    import ray

    if ray.is_initialized():
        return
    address = os.environ.get("RAY_ADDRESS")
    options: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": bool(os.environ.get("UNETFLOW_DEBUG"))}
    if not address:
        folder = storage.cache_folder() / "ray"
        options |= {
            "address": "local",  # else a Ray that somebody else started on this machine would be joined
            "num_cpus": max(num_cpus or 0, os.cpu_count() or 1),
            "include_dashboard": False,
            "object_store_memory": 512 << 20,
        }
        if len(str(folder)) <= LONGEST_TEMP_FOLDER:
            options["_temp_dir"] = str(folder)
    # Without a dashboard, the helper that Ray Train starts beside each training looks for it for 40 seconds, and a
    # training that ends sooner waits 12 for the helper. Ray's processes inherit this address: it finds out at once.
    overruling = {} if address else {"RAY_API_SERVER_ADDRESS": NOTHING_LISTENS}
    with mock.patch.dict(os.environ, overruling):
        ray.init(**options)
    if threading.current_thread() is threading.main_thread():
        # Below Python's handler Ray put one that aborts a process still there after three seconds: take it away.
        signal.signal(signal.SIGTERM, signal.getsignal(signal.SIGTERM))
    ray.data.DataContext.get_current().enable_progress_bars = False  # stages show their own
    logging.getLogger("ray.train").setLevel(logging.WARNING)


def ensure_workers(compute: ComputeSpec) -> None:
    """Connect to Ray or start it. Raises UserError where it can never hold the workers: they would be waited for."""
    ensure_ray(compute.num_cpus)
    import ray

    have = ray.cluster_resources()
    for kind, number in compute.least_resources.items():
        if have.get(kind, 0) < number:
            raise UserError(
                f"compute.num_workers={compute.num_workers} needs {number} {kind}s, the Ray cluster has "
                f"{have.get(kind, 0):g}: lower compute.num_workers or compute.threads_per_worker, or add nodes"
            )


def iter_on_actors(actor: type, items: Sequence[dict[str, Any]], compute: ComputeSpec) -> Iterator[dict[str, Any]]:
    """What ``actor()(item)`` returns for each of ``items``, as it is done, on ``num_workers`` actors."""
    ensure_workers(compute)
    import ray.data

    dataset = ray.data.from_items(items, override_num_blocks=len(items)).map(
        actor,
        compute=ray.data.ActorPoolStrategy(min_size=compute.least_workers, max_size=compute.most_workers),
        num_cpus=compute.threads_per_worker,
        num_gpus=1 if compute.use_gpu else 0,
    )
    yield from dataset.iter_rows()
