"""Status of the stages that run: for ``unetflow status``, and for the metrics of this process.

<storage>/running/<stage>-<key>.json    on local storage; removed once the stage is done

A file whose stage nobody computes (its lock is free) is that of a process that ended before the stage was done.
"""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from data_pipelines import storage
from data_pipelines.specs import Spec
from flows.config.run_id import current_run_id

logger = logging.getLogger(__name__)

FOLDER = "running"
SECONDS_BETWEEN_WRITES = 2.0

_live: dict[str, StageStatus] = {}
"""Stages that this process computes, by key."""


class StageStatus(Spec):
    """Progress of a stage that runs, or that did not end. Times are in seconds since 1970."""

    run_id: str = ""
    pipeline: str = ""
    """Kind of the pipeline, such as ``segmentation``."""
    model: str = ""
    """Name of the registered model."""
    stage: str = ""
    key: str = ""
    host: str = ""
    pid: int = 0
    started: float = 0.0
    updated: float = 0.0
    step: int = 0
    num_steps: int = 0
    """Steps of the whole training; 0: the stage has no steps."""
    steps_per_second: float | None = None
    loss: float | None = None
    seconds_left: float | None = None
    """As of ``updated``; None: not known yet."""
    checkpoint_at: float | None = None
    """Time of the last checkpoint."""
    goodput_percent: float | None = None
    gpu_memory_gib: float | None = None
    """Peak of rank 0."""


@dataclass(slots=True)
class StatusKeeper:
    """Keeps the status of one stage, in memory and, with a ``uri``, in a file."""

    status: StageStatus = field(default_factory=StageStatus)
    uri: str = ""
    _written: float = 0.0

    def update(self, **changes: Any) -> None:
        """Change fields; the file follows at most every two seconds."""
        self.status = self.status.model_copy(update=changes | {"updated": time.time()})
        if self.status.key in _live:
            _live[self.status.key] = self.status
        if self.uri and self.status.updated - self._written >= SECONDS_BETWEEN_WRITES:
            self.write()

    def write(self) -> None:
        """Write the file; one that cannot be written ends nothing."""
        self._written = time.time()
        try:
            storage.write_bytes(self.uri, self.status.model_dump_json().encode())
        except OSError as error:
            logger.warning("`unetflow status` will not show this run: %s", error)
            self.uri = ""


@contextmanager
def keep_status(stage_uri: str, pipeline: str, model: str) -> Iterator[StatusKeeper]:
    """Keep the status of a stage for the length of the block; its file stays where the block ends with an error."""
    root, stage, key = stage_uri.rsplit("/", 2)
    now = time.time()
    status = StageStatus(
        run_id=current_run_id(),
        pipeline=pipeline,
        model=model,
        stage=stage,
        key=key,
        host=socket.gethostname(),
        pid=os.getpid(),
        started=now,
        updated=now,
    )
    is_local = storage.is_local(stage_uri)
    keeper = StatusKeeper(status, storage.join(root, FOLDER, f"{stage}-{key[:12]}.json") if is_local else "")
    _live[key] = status
    if keeper.uri:
        keeper.write()
    try:
        yield keeper
    finally:
        del _live[key]
        if keeper.uri:
            keeper.write()
    with suppress(OSError):  # the stage is done: a file that stays is not listed
        if keeper.uri:
            storage.delete(keeper.uri)


def live_statuses() -> list[StageStatus]:
    """Return the status of each stage that this process computes."""
    return list(_live.values())


def find_statuses(root: str) -> list[StageStatus]:
    """Read the status of each stage of the storage ``root`` that runs or did not end, oldest first."""
    return sorted((status for _, status in iter_statuses(root)), key=lambda status: status.started)


def iter_statuses(root: str) -> Iterator[tuple[str, StageStatus]]:
    """Yield each file below the storage ``root`` with the status in it; an object store has none."""
    for name in storage.list_names(storage.join(root, FOLDER)) if storage.is_local(root) else ():
        uri = storage.join(root, FOLDER, name)
        try:
            yield uri, StageStatus.model_validate_json(storage.read_bytes(uri))
        except FileNotFoundError:  # it has ended meanwhile
            continue
        except ValidationError:
            logger.warning("%s is damaged; remove it", uri)
