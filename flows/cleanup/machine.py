"""Left-overs of killed processes on this machine: temporary folders and sessions of Ray."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from data_pipelines.temporary import LOCK, PREFIX, find_leftovers
from flows.cleanup.garbage import Garbage, examine_local
from flows.cluster.folders import find_ray_folders

_SESSION = re.compile(r"session_\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d_\d+_(\d+)")
_UNLOCKED = re.compile(rf"{PREFIX}(checkpoint|train|folder|file|job|model|champion|pipeline|tokenizer|network)-\w{{8}}")
"""Names of temporary folders without a lock: only their age tells whether somebody needs them."""


def find_temporary(before: float) -> Iterator[Garbage]:
    """Yield the temporary folders of this user's dead processes, and those without a lock that are old."""
    for folder in find_leftovers():
        yield Garbage("temporary folder", str(folder), examine_local(folder).size)
    for folder in sorted(Path(tempfile.gettempdir()).glob(f"{PREFIX}*")):
        is_ours = _UNLOCKED.fullmatch(folder.name) and folder.is_dir() and not folder.is_symlink()
        if is_ours and folder.stat().st_uid == os.getuid() and not (folder / LOCK).exists():
            contents = examine_local(folder)
            if contents.newest < before:
                yield Garbage("temporary folder", str(folder), contents.size)


def find_sessions(before: float) -> Iterator[Garbage]:
    """Yield the sessions of this user's Rays that have ended.

    A cache folder may be shared with other machines, whose processes nobody sees from here: a session whose log files
    were written lately stays.
    """
    commands = list(_iter_commands())
    for folder in (session for parent in find_ray_folders() for session in sorted(parent.glob("session_*"))):
        match = _SESSION.fullmatch(folder.name)
        if not match or folder.is_symlink() or _is_alive(int(match[1])):
            continue
        if any(folder.name in command for command in commands):
            continue
        contents = examine_local(folder)
        if contents.newest < before:
            yield Garbage("Ray session", str(folder), contents.size)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _iter_commands() -> Iterator[str]:
    """Yield the command lines of the processes of this machine, on Linux; those that end meanwhile are skipped."""
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            yield file.read_text(errors="replace")
