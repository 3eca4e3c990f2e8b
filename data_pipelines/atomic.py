"""Files and folders that appear under their name complete or not at all: written beside it, then renamed."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from data_pipelines.processes import is_gone, this_process

PREFIX = ".partial-"
NAME_LENGTH = 100
"""Characters of the final name, counted from its end, that the temporary one keeps: file systems take 255."""


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; it is renamed to ``path`` when the block ends without an error.

    The temporary name is hidden (listings skip it) and keeps the suffix, which some writers go by.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_path(path)
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def atomic_files(path: Path) -> Iterator[Path]:
    """Yield a path of this name in a temporary folder beside it; files of that folder move beside ``path`` at the end.

    That is when the block ends without an error. ``path`` itself comes last: where it is, all of them are.
    """
    temporary = temporary_path(path)
    temporary.mkdir(parents=True)
    try:
        yield temporary / path.name
        for file in sorted(temporary.iterdir(), key=lambda file: file.name == path.name):
            file.replace(path.with_name(file.name))
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yield an empty temporary folder beside ``path``; it is renamed to ``path`` when the block ends without an error.

    Where another process was faster, its folder stays and this one is removed: both must hold the same content.
    """
    temporary = temporary_path(path)
    temporary.mkdir(parents=True)
    try:
        yield temporary
        try:
            temporary.rename(path)  # fails on a folder that is not empty
        except OSError:
            if not path.is_dir():
                raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def remove_leftovers(folder: Path) -> None:
    """Remove what killed processes of this machine were writing directly below a folder; live ones keep theirs."""
    for path in folder.glob(f"{PREFIX}*"):
        process = path.name.removeprefix(PREFIX).partition("_")[0]
        if is_gone(process):
            shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)


def temporary_path(path: Path) -> Path:
    """Return a hidden name beside ``path`` that ``remove_leftovers`` knows once this process has died."""
    return path.with_name(f"{PREFIX}{this_process()}_{uuid.uuid4().hex[:8]}-{path.name[-NAME_LENGTH:]}")
