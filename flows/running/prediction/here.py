"""Map items in threads of this process: a Ray of its own would take longer to start than a few volumes to predict."""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress

from data_pipelines.errors import ConfigError
from flows.cluster.actors import Row
from flows.config.specs import ComputeSpec


def runs_here(compute: ComputeSpec) -> bool:
    """Tell whether one process is enough: a single worker, and no Ray that ``RAY_ADDRESS`` names."""
    return compute.max_workers == 1 and not os.environ.get("RAY_ADDRESS")


def require_gpu() -> None:
    """Raise ConfigError where this process has no GPU that torch can use: the CPU would take over without a word."""
    import torch

    if not torch.cuda.is_available():
        raise ConfigError("--gpu: torch finds no GPU here; leave it out, or see `unetflow doctor`")


def map_here(call: Callable[[Row], Row], items: Sequence[Row], compute: ComputeSpec, calls: int) -> Iterator[Row]:
    """Yield ``call(item)`` for each item, as it completes, from up to ``calls`` threads. ``call`` must not raise.

    The threads do not keep the process alive: a command that is stopped ends at once.
    """
    if compute.use_gpu:
        require_gpu()
    else:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""  # as Ray does for a worker without one
    due: queue.SimpleQueue[Row] = queue.SimpleQueue()
    done: queue.SimpleQueue[Row] = queue.SimpleQueue()
    for item in items:
        due.put(item)

    def work() -> None:
        import torch

        torch.set_num_threads(compute.threads_per_worker)
        while True:
            try:
                item = due.get_nowait()
            except queue.Empty:
                return
            done.put(call(item))

    for number in range(min(calls, len(items))):
        threading.Thread(target=work, name=f"predict-{number}", daemon=True).start()
    try:
        for _ in items:
            yield done.get()
    finally:
        with suppress(queue.Empty):  # where the caller has stopped
            while True:
                due.get_nowait()
