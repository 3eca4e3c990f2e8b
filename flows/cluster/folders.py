"""Folders of the Rays that are started here. Ray makes its own 0777: their parents are private.

A job's code lies in them, and Ray's logs of what it runs.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from data_pipelines import storage
from flows.config.locations import private_folder, state_folder

MAX_FOLDER_LENGTH = 40
"""Ray puts Unix sockets 64 bytes below its folder, and the kernel limits their paths to 107 bytes."""
NAME = "ray"
"""Beginning of the names of Ray's folders."""


def ray_folder(parent: Path, name: str = NAME) -> Path:
    """Return a folder for a Ray's files in the private folder ``parent``, or in a short one where its path is too long.

    Raises ConfigError where the private folder is not this user's alone.
    """
    if len(str(parent / name)) > MAX_FOLDER_LENGTH:
        parent = _short_parent()
    return private_folder(parent) / name


def local_parent() -> Path:
    """Return the private folder of the Rays that end with the process that started them."""
    return storage.cache_folder() / "run"


def stack_folder() -> Path:
    """Return the default folder of ``make stack``."""
    return state_folder() / "stack"


def find_ray_folders() -> Iterator[Path]:
    """Yield the folders of this user's Rays that exist."""
    for parent in (local_parent(), stack_folder(), _short_parent()):
        if parent.is_dir() and not parent.is_symlink() and parent.stat().st_uid == os.geteuid():
            yield from sorted(path for path in parent.glob(f"{NAME}*") if path.is_dir())


def _short_parent() -> Path:
    return Path(f"/tmp/unetflow-{os.geteuid()}")


def log_folder() -> str:
    """Return the folder of Ray's log files on this machine."""
    from ray._private import worker

    node = worker._global_node
    return str(node.get_logs_dir_path()) if node is not None else "/tmp/ray/session_latest/logs"
