"""Announced ends as Ray Train sees them: SIGTERM to a worker, a node that is drained, and what the driver asks for."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

from ray.train.v2._internal.execution.callback import WorkerCallback, WorkerGroupCallback
from ray.train.v2._internal.execution.context import get_train_context

from flows.training.stop import StopFile, StopReason

_asked = StopReason.NONE
"""Stop reason requested of this worker process."""


def ask_to_stop(reason: StopReason) -> None:
    """Ask this worker to stop after its current step."""
    global _asked
    _asked = max(_asked, reason)


def stop_reason() -> StopReason:
    """Return why this worker is to stop."""
    # Not ray.train.get_preemption_info, where all ranks meet through an actor: fit has an agreement of its own.
    drained = get_train_context().preemption_context.preemption_info is not None
    return max(_asked, StopReason.NODE_DRAINED if drained else StopReason.NONE)


def drained_nodes() -> tuple[str, ...]:
    """Return Ray's ids of the nodes of this training that are taken away."""
    info = get_train_context().preemption_context.preemption_info
    return tuple(info.preempted_node_ids) if info else ()


class StopOnSigterm(WorkerCallback):
    """Makes SIGTERM to a worker a request to stop; Ray's own handler ends the process in mid-step."""

    def after_init_train_context(self) -> None:
        """Set the handler; Ray calls this in the main thread of each worker."""
        signal.signal(signal.SIGTERM, lambda *_: ask_to_stop(StopReason.WORKER_SIGTERM))


class PassOnStops(WorkerGroupCallback):
    """Passes on to the workers what the driver asks for; Ray calls this on the controller."""

    def __init__(self, path: Path) -> None:
        self.file = StopFile(path)
        self._worker_group: Any = None
        self._asked = StopReason.NONE

    def after_worker_group_start(self, worker_group: Any) -> None:
        """Note the workers, which were asked nothing yet."""
        self._worker_group, self._asked = worker_group, StopReason.NONE

    def after_worker_group_poll_status(self, worker_group_status: Any) -> None:
        """Ask the workers, a few times per second at most."""
        reason = self.file.read()
        if reason > self._asked:
            self._asked = reason
            for worker in self._worker_group.get_workers():
                worker.execute_async(ask_to_stop, reason)
