"""Map items over a pool of Ray actors."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar

from data_pipelines.errors import NOT_RETRYABLE
from data_pipelines.remote_errors import pack_error, unpack_error
from flows.cluster.connection import connect_workers
from flows.cluster.local_ray import require_local_ray
from flows.config.specs import ComputeSpec

ERROR = "error_of_actor"
"""Column of a row that holds an actor's error; empty where there is none."""
Row = dict[str, Any]
"""One row of a Ray data set: column to value. What is typed travels in it as JSON."""


def map_on_actors(actor: type, items: Sequence[Row], compute: ComputeSpec, calls: int = 1) -> Iterator[Row]:
    """Yield ``actor()(item)`` for each item, as it completes, on ``compute.num_workers`` actors.

    Each actor is called for up to ``calls`` items at once, from threads of its own. An error that a retry would only
    repeat is raised as the actor raised it; Ray retries any other.
    """
    connect_workers(compute)
    rows = _map(actor, items, compute, calls)
    while (row := _next(rows)) is not None:
        yield row


def _next(rows: Iterator[Row]) -> Row | None:
    """Return the next row, None after the last: Ray is needed here, not in what the caller does with a row."""
    with require_local_ray():
        return next(rows, None)


def _map(actor: type, items: Sequence[Row], compute: ComputeSpec, calls: int) -> Iterator[Row]:
    import ray.data

    most = min(compute.max_workers, len(items))  # Ray Data warns of actors without work
    dataset = ray.data.from_items(items, override_num_blocks=len(items)).map(
        _guarded(actor),
        compute=ray.data.ActorPoolStrategy(
            min_size=min(compute.min_workers, most),
            max_size=most,
            max_concurrent_calls_per_actor=calls,
            enable_true_multi_threading=calls > 1,
        ),
        num_cpus=compute.threads_per_worker,
        num_gpus=1 if compute.use_gpu else 0,
    )
    for row in dataset.iter_rows():
        if error := row.pop(ERROR):
            raise unpack_error(error)
        yield row


class _Guarded:
    """An actor that returns its errors. (Ray would wrap them, and retry what cannot succeed.)"""

    actor: Callable[[], Callable[[Row], Row]]
    worker: Callable[[Row], Row] | None = None
    building: ClassVar = threading.Lock()
    """Held while the actor is built: the first calls may come together."""

    def __call__(self, item: Row) -> Row:
        try:
            with self.building:
                self.worker = self.worker or type(self).actor()
            return self.worker(item) | {ERROR: ""}
        except NOT_RETRYABLE as error:
            return {ERROR: pack_error(error)}


def _guarded(actor: type) -> type[_Guarded]:
    """Build the guard of an actor, by whose name Ray's dashboard and its process lists show it."""
    return type(actor.__name__, (_Guarded,), {"actor": staticmethod(actor)})
