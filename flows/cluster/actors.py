"""Map items over a pool of Ray actors."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from flows.cluster.connection import connect_workers
from flows.config.specs import ComputeSpec

Item = dict[str, Any]
"""One row of a Ray data set: column to value. What is typed travels in it as JSON."""


def map_on_actors(actor: type, items: Sequence[Item], compute: ComputeSpec) -> Iterator[Item]:
    """Yield ``actor()(item)`` for each item, as it completes, on ``compute.num_workers`` actors."""
    connect_workers(compute)
    import ray.data

    dataset = ray.data.from_items(items, override_num_blocks=len(items)).map(
        actor,
        compute=ray.data.ActorPoolStrategy(min_size=compute.min_workers, max_size=compute.max_workers),
        num_cpus=compute.threads_per_worker,
        num_gpus=1 if compute.use_gpu else 0,
    )
    yield from dataset.iter_rows()
