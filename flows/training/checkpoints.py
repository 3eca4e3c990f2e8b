"""Checkpoints of every attempt at a training: the usable ones, and why the others are not."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass, field

from data_pipelines import storage
from data_pipelines.errors import WeightsError
from flows.stages.record import RECORD
from flows.training.history import CHECKPOINT_NAME, UnusableCheckpoint
from unet_models.training.checkpoint import MARKER, CheckpointMarker, check_checkpoint

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class CheckpointSearch:
    """Iterates over URI and marker of the usable checkpoints of a stage, highest step first.

    ``unusable`` holds those that were skipped so far.
    """

    stage_uri: str
    unusable: list[UnusableCheckpoint] = field(default_factory=list)

    def __iter__(self) -> Iterator[tuple[str, CheckpointMarker]]:
        for step, attempt, name in sorted(iter_checkpoints(self.stage_uri), reverse=True):
            uri = storage.join(self.stage_uri, attempt, name)
            try:
                marker = read_checkpoint(uri, step)
            except WeightsError as error:
                self.unusable.append(UnusableCheckpoint(name=f"{attempt}/{name}", step=step, reason=str(error)))
                logger.warning("checkpoint %s is unusable and was skipped", self.unusable[-1])
            else:
                yield uri, marker


def iter_checkpoints(stage_uri: str) -> Iterator[tuple[int, str, str]]:
    """Yield step, attempt and name of every folder that is named like a checkpoint."""
    for attempt in storage.list_names(stage_uri):
        if attempt == RECORD:
            continue
        for name in storage.list_names(storage.join(stage_uri, attempt)):
            if match := CHECKPOINT_NAME.fullmatch(name):
                yield int(match[1]), attempt, name


def count_checkpoints(attempt_uri: str) -> int:
    """Return how many checkpoints of an attempt were written to their end."""
    names = (name for name in storage.list_names(attempt_uri) if CHECKPOINT_NAME.fullmatch(name))
    return sum(storage.size(storage.join(attempt_uri, name, MARKER)) is not None for name in names)


def read_checkpoint(uri: str, step: int) -> CheckpointMarker:
    """Read the marker of the checkpoint after ``step`` steps. Raises WeightsError, which says what is wrong with it."""
    with storage.local_folder(uri) as folder:
        marker = check_checkpoint(folder)
    if marker.step != step:
        raise WeightsError(f"its content is of step {marker.step}")
    return marker
