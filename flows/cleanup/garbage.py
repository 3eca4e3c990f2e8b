"""One thing that may go, and its removal."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pyarrow import fs as pafs

from data_pipelines import storage

Kind = Literal["attempt", "checkpoint", "temporary folder", "Ray session", "status"]


@dataclass(frozen=True, slots=True)
class Garbage:
    """A folder, or a file, that nobody needs."""

    kind: Kind
    uri: str
    size: int
    """Bytes."""


@dataclass(frozen=True, slots=True)
class Contents:
    """Size of a folder in bytes, and when its newest file was written, in seconds since 1970."""

    size: int
    newest: float


def examine_folder(uri: str) -> Contents:
    """Look at all files below a folder, hidden ones too; an empty one counts as written long ago."""
    fs, path = storage.resolve(uri)
    size, newest = 0, 0.0
    for info in fs.get_file_info(pafs.FileSelector(path, allow_not_found=True, recursive=True)):
        if info.is_file:
            size += info.size
        newest = max(newest, (info.mtime_ns or 0) / 1e9)
    return Contents(size, newest)


def examine_local(folder: Path) -> Contents:
    """Look at all files below a folder of this machine; links are not followed, sockets and pipes are skipped."""
    size, newest = 0, folder.lstat().st_mtime
    for parent, _, names in os.walk(folder):
        for name in names:
            try:
                status = os.lstat(os.path.join(parent, name))
            except OSError:
                continue
            size, newest = size + status.st_size, max(newest, status.st_mtime)
    return Contents(size, newest)


def remove(garbage: Garbage) -> None:
    """Remove the folder or file. Raises OSError where it cannot be removed."""
    if storage.size(garbage.uri) is not None:
        storage.delete(garbage.uri)
    elif storage.is_local(garbage.uri):
        shutil.rmtree(storage.local_path(garbage.uri))
    else:
        fs, path = storage.resolve(garbage.uri)
        fs.delete_dir(path)
