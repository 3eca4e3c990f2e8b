"""Groups of workers that train one after the other until the last step: an announced end of one is no failure."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from flows.cluster.connection import count_free_workers, count_places, own_node_id
from flows.config.specs import ComputeSpec
from flows.training.failures import WorkersLostError
from flows.training.listener import Listener
from flows.training.stop import HeldSignals, StopFile, Stopped, StopReason, in_thread, is_ready

if TYPE_CHECKING:
    from ray.train.torch import TorchTrainer


logger = logging.getLogger(__name__)

GROW_SECONDS = 30.0
"""Time between two looks for room for more workers; doubled where there was room and the group did not grow."""

REPORT_SECONDS = 1.0
"""Time after which the report that workers have begun has certainly been read."""


@dataclass(slots=True)
class Growth:
    """Tells when an elastic group should start again because the cluster has room for more workers."""

    compute: ComputeSpec
    count_free: Callable[[dict[str, float]], int] = count_free_workers
    now: Callable[[], float] = time.monotonic
    _interval: float = GROW_SECONDS
    _next: float | None = None

    def is_due(self, num_workers: int) -> bool:
        """Look for room, every now and then, while fewer than the most workers train."""
        if num_workers >= self.compute.max_workers:
            self._interval, self._next = GROW_SECONDS, None
            return False
        if self._next is None:
            self._next = self.now() + self._interval
        if self.now() < self._next:
            return False
        has_room = self.count_free(self.compute.worker_resources) > 0
        if has_room:
            self._interval *= 2
        self._next = self.now() + self._interval
        return has_room


@dataclass(slots=True)
class WorkerGroups:
    """``WorkerGroups(...).run()`` trains with one group of workers after the other until the last step."""

    listener: Listener
    compute: ComputeSpec
    stop: StopFile
    build: Callable[[ComputeSpec], TorchTrainer]
    """Builds the trainer of a group that reserves these resources."""
    is_asked: bool = False
    """True once the workers were asked to stop because a signal is held."""
    growth: Growth = field(init=False)
    _next: ComputeSpec = field(init=False)
    """Resources of the next group."""

    def __post_init__(self) -> None:
        self.growth = Growth(self.compute)
        self._next = self.compute

    def run(self) -> None:
        """Train to the last step, or until a signal stops the run. Raises what the workers raise."""
        with HeldSignals() as held:
            while (stopped := self._fit(held)) is not None and held.received is None:
                self._go_on_after(stopped)
            if stopped is not None and held.received is not None:
                logger.warning(
                    "%s: stopped at step %d by %s; the same command resumes from there",
                    self.listener.name,
                    stopped.step,
                    held.received.name,
                )
            held.deliver()

    def _fit(self, held: HeldSignals) -> Stopped | None:
        """Train with one group; return how it stopped, None at the last step."""
        self.listener.is_training = False
        future = in_thread(self.build(self._next).fit, "ray-train")  # else Ray takes SIGINT for itself
        while not is_ready(future):
            if held.received is not None:
                self._stop_or_give_up(held)
            elif self.listener.is_training and self.growth.is_due(self.listener.start.num_workers):
                self.stop.ask(StopReason.MORE_WORKERS)
        text = future.result().return_value
        return Stopped.model_validate_json(text) if text else None

    def _stop_or_give_up(self, held: HeldSignals) -> None:
        """Ask the workers for a checkpoint, and deliver the signal where they take too long or have not begun."""
        assert held.received is not None
        grace = self.compute.stop_grace_seconds
        name, by = self.listener.name, held.received.name
        seconds = time.monotonic() - held.since
        if not self.listener.is_training:
            if seconds >= REPORT_SECONDS:
                held.deliver()
        elif not self.is_asked and grace:
            self.is_asked = True
            self.stop.ask(StopReason.RUN_STOPPED)
            logger.warning("%s: %s: saving a checkpoint, within %g s; another signal ends at once", name, by, grace)
        elif seconds >= grace:
            logger.warning("%s: no checkpoint within %g s after %s; the newest one is used on resume", name, grace, by)
            held.deliver()

    def _go_on_after(self, stopped: Stopped) -> None:
        """Tell why a group stopped. Raises WorkersLostError where this process ends with a node that is taken away."""
        name, step = self.listener.name, stopped.step
        if stopped.drained_nodes and own_node_id() in stopped.drained_nodes:
            raise WorkersLostError(
                f"{name}: stopped at step {step}: Ray is about to take away the node that the run itself is on; the "
                "same command resumes from there"
            )
        # Ray counts a drained node until it is gone, and would wait a minute for workers there.
        self._next = without_leaving_nodes(self.compute) if stopped.drained_nodes else self.compute
        logger.warning("%s: checkpoint at step %d: %s; training continues", name, step, stopped.reason.text)
        self.stop.clear()


def without_leaving_nodes(compute: ComputeSpec) -> ComputeSpec:
    """Return the resources with at most as many workers as there are places for beside the nodes that are drained; as
    they are where that is too few, and a node must come."""
    places = count_places(compute.worker_resources)
    if not compute.min_workers <= places < compute.max_workers:
        return compute
    number = places if places == compute.min_workers else (compute.min_workers, places)
    return compute.model_copy(update={"num_workers": number})
