"""Space that checkpoints need: forecast before a training starts, and told when a disk is full all the same."""

from __future__ import annotations

import errno
import math
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from data_pipelines import storage
from unet_models.specs.loop import LoopSpec

_FULL = (errno.ENOSPC, errno.EDQUOT)
_WORDS = ("No space left on device", "Disk quota exceeded")


def num_checkpoints(spec: LoopSpec, step: int, num_there: int = 0) -> int:
    """Return for how many more checkpoints the storage needs room: those that are kept, and the one being written.

    ``num_there`` of this attempt are there already: Ray Train deletes them in turn.
    """
    to_come = math.ceil((spec.num_steps - step) / spec.checkpoint_every_steps)
    return min(max(spec.keep_checkpoints + 1 - num_there, 1), to_come)


def check_space(storage_uri: str, checkpoint_bytes: int, number: int) -> None:
    """Raise OSError where the storage or the temporary folder is too small; an object store counts as large enough.

    ``number`` checkpoints of ``checkpoint_bytes`` go to the storage, and each lies in the temporary folder first.
    """
    needed = {Path(tempfile.gettempdir()): checkpoint_bytes}
    if storage.is_local(storage_uri):
        needed[storage.local_path(storage_uri)] = number * checkpoint_bytes
    for folder, size in needed.items():
        together = sum(other for place, other in needed.items() if _device(place) == _device(folder))
        free = shutil.disk_usage(_existing(folder)).free
        if together > free:
            raise OSError(
                errno.ENOSPC,
                f"{folder} has {_text(free)} free, and this training needs {_text(together)} there, of which "
                f"{_text(size)} in this folder: {number} checkpoints of {_text(checkpoint_bytes)} in the storage "
                "and one in the temporary folder. Make room (`unetflow gc`), lower keep_checkpoints, or set TMPDIR",
            )


def is_full(error: BaseException) -> bool:
    """Tell whether an error, or what it was raised from, says that a disk or quota is full."""
    return any(
        (isinstance(each, OSError) and each.errno in _FULL) or any(word in str(each) for word in _WORDS)
        for each in _chain(error)
    )


def full_disk(error: BaseException, storage_uri: str, checkpoint_bytes: int, number: int) -> OSError:
    """Build the one message about a full disk: what is needed and what there is. One that says so already stays."""
    if isinstance(error, OSError) and "this training needs" in str(error):
        return error
    places = [tempfile.gettempdir()] + ([str(storage.local_path(storage_uri))] if storage.is_local(storage_uri) else [])
    free = ", ".join(f"{_text(shutil.disk_usage(_existing(Path(place))).free)} in {place}" for place in places)
    return OSError(
        errno.ENOSPC,
        f"a training worker ran out of disk space. Free now: {free}. Needed: {number} checkpoints of "
        f"{_text(checkpoint_bytes)} in the storage and one in the temporary folder. Make room (`unetflow gc`); the "
        "same command resumes",
    )


def _existing(folder: Path) -> Path:
    """Return the folder, or the nearest one above it that exists."""
    return next(each for each in (folder, *folder.parents) if each.exists())


def _device(folder: Path) -> int:
    return _existing(folder).stat().st_dev


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    each: BaseException | None = error
    while each is not None and id(each) not in seen:
        seen.add(id(each))
        yield each
        each = each.__cause__ or each.__context__


def _text(size: int) -> str:
    return f"{size / 1e9:.2f} GB" if size >= 1e8 else f"{size / 1e6:.2f} MB"
