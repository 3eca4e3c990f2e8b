"""Attempts and checkpoints that no record names, in a storage.

A record is never removed, nor anything that any record of the storage names, nor any stage that a registered version
came from. What was written lately stays, too: an attempt without a record is what a training resumes from.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field

from data_pipelines import storage
from flows.cleanup.garbage import Garbage, Kind, examine_folder
from flows.config.run_id import UNIQUE_NAME
from flows.stages.lock import try_lock
from flows.stages.record import RECORD
from flows.stages.status import iter_statuses
from flows.training.history import CHECKPOINT_NAME

logger = logging.getLogger(__name__)

_KEY = re.compile(r"[0-9a-f]{64}")
_NAMED = re.compile(rf"({UNIQUE_NAME.pattern})(?:/({CHECKPOINT_NAME.pattern}))?")
_PASSED_OVER = ("resumes", "unusable_checkpoints")
"""Figures of a training that name checkpoints which nobody can use."""


@dataclass(slots=True)
class Named:
    """Attempts, checkpoints and stages that the records of a storage name, wherever in them."""

    attempts: set[str] = field(default_factory=set)
    checkpoints: set[str] = field(default_factory=set)
    """``ATTEMPT/step-N``."""
    finished: set[str] = field(default_factory=set)
    """Folders of stages with a record."""
    unreadable: set[str] = field(default_factory=set)
    """Folders of stages whose record cannot be read: nothing in them may go."""


def find_in_storage(root: str, registered: set[str], before: float) -> Iterator[Garbage]:
    """Yield attempts and checkpoints below ``root`` that nobody needs.

    ``registered`` are keys of stages that registered versions came from; ``before`` is the time, in seconds since 1970,
    since which nothing in a folder may have been written.
    """
    stages = list(iter_stages(root))
    named = _read_records(stages)
    for uri in stages:
        if uri in named.unreadable or (uri.rsplit("/", 1)[1] in registered and uri not in named.finished):
            continue
        if not (found := list(_find_in_stage(uri, named, before))):
            continue
        with try_lock(uri) as is_free:
            if is_free:
                yield from found
    yield from _find_statuses(root, before)


def iter_stages(root: str) -> Iterator[str]:
    """Yield the folders of all stages: those that are named by a key. Other folders are not ours."""
    for stage in storage.list_names(root):
        if storage.size(storage.join(root, stage)) is not None:  # a file
            continue
        for key in storage.list_names(storage.join(root, stage)):
            if _KEY.fullmatch(key):
                yield storage.join(root, stage, key)


def is_unnamed(uri: str, stage: str) -> bool:
    """Tell whether the record of ``stage``, read anew, does not name the attempt or checkpoint at ``uri``."""
    named = _read_records([stage])
    name = uri.removeprefix(f"{stage}/")
    return not named.unreadable and name not in named.attempts | named.checkpoints


def _read_records(stages: list[str]) -> Named:
    named = Named()
    for uri in stages:
        with suppress(FileNotFoundError):
            text = storage.read_bytes(storage.join(uri, RECORD))
            named.finished.add(uri)
            try:
                record = json.loads(text)
                figures = {name: value for name, value in record["figures"].items() if name not in _PASSED_OVER}
            except (ValueError, KeyError, AttributeError, TypeError):
                logger.warning("%s/%s is damaged: nothing beside it is removed", uri, RECORD)
                named.unreadable.add(uri)
                continue
            for attempt, checkpoint, _ in _NAMED.findall(json.dumps(record | {"figures": figures})):
                named.attempts.add(attempt)
                named.checkpoints.add(f"{attempt}/{checkpoint}")
    return named


def _find_in_stage(uri: str, named: Named, before: float) -> Iterator[Garbage]:
    for attempt in storage.list_names(uri):
        if not UNIQUE_NAME.fullmatch(attempt):
            continue
        if attempt not in named.attempts:
            yield from _if_old("attempt", storage.join(uri, attempt), before)
            continue
        for name in storage.list_names(storage.join(uri, attempt)):
            if CHECKPOINT_NAME.fullmatch(name) and f"{attempt}/{name}" not in named.checkpoints:
                yield from _if_old("checkpoint", storage.join(uri, attempt, name), before)


def _find_statuses(root: str, before: float) -> Iterator[Garbage]:
    """Yield old files of stages that nobody computes: they were not done, and were never tried again."""
    for uri, status in iter_statuses(root):
        with try_lock(storage.join(root, status.stage, status.key)) as is_free:
            if is_free and status.updated < before:
                yield Garbage("status", uri, storage.size(uri) or 0)


def _if_old(kind: Kind, uri: str, before: float) -> Iterator[Garbage]:
    contents = examine_folder(uri)
    if contents.newest < before:
        yield Garbage(kind, uri, contents.size)
