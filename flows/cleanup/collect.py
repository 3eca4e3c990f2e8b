"""All that nobody needs any more."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from data_pipelines import storage
from data_pipelines.errors import ConfigError
from flows.cleanup.garbage import Garbage, remove
from flows.cleanup.machine import find_sessions, find_temporary
from flows.cleanup.storage import find_in_storage, is_unnamed
from flows.registry.models import TAG_PREFIX, list_versions
from flows.registry.tracking import tracking_uri
from flows.stages.lock import try_lock

logger = logging.getLogger(__name__)

SECONDS_PER_DAY = 86400.0


def find_garbage(root: str, keep_days: float) -> list[Garbage]:
    """Find what may go: in the storage ``root``, and on this machine.

    Raises ConfigError where ``keep_days`` would endanger running attempts, ServerError where MLflow does not answer.
    """
    if keep_days < 1 and not storage.is_local(root):
        raise ConfigError(
            f"--keep-days {keep_days:g}: on an object store only its age tells a running attempt from a dead one; "
            "give at least 1"
        )
    now = time.time()
    before, day_ago = now - keep_days * SECONDS_PER_DAY, now - SECONDS_PER_DAY  # of what only its age tells
    return [
        *find_in_storage(root, registered_keys(root), before),
        *find_temporary(min(before, day_ago)),
        *find_sessions(min(before, day_ago)),
    ]


def registered_keys(root: str) -> set[str]:
    """Return the keys of all stages that registered versions came from."""
    uri = tracking_uri(root)
    if uri.startswith("sqlite:///") and not Path(uri.removeprefix("sqlite:///")).exists():
        return set()  # nothing was ever registered; looking would make the database
    return {
        value
        for version in list_versions(root)
        for name, value in version.tags.items()
        if name.startswith(TAG_PREFIX) and name.endswith("_key")
    }


def remove_all(garbage: Iterable[Garbage], on_removed: Callable[[Garbage], None]) -> int:
    """Remove each folder and pass it on; return how many could not be removed, which are logged with the reason."""
    num_failed = 0
    for each in garbage:
        try:
            if not _remove_one(each):
                continue
        except OSError as error:
            logger.warning("%s could not be removed: %s", each.uri, error)
            num_failed += 1
        else:
            on_removed(each)
    return num_failed


def _remove_one(garbage: Garbage) -> bool:
    """Remove a folder; False where a stage that was idle when it was found is running now, or has ended meanwhile."""
    if garbage.kind not in ("attempt", "checkpoint"):
        remove(garbage)
        return True
    stage = garbage.uri.rsplit("/", 1 if garbage.kind == "attempt" else 2)[0]
    with try_lock(stage) as is_free:
        if is_free and is_unnamed(garbage.uri, stage):  # by a record that a run has written since it was found
            remove(garbage)
            return True
        return False
