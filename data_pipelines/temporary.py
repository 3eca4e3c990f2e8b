"""Temporary folders that are found again, and removed, after their process was killed.

Each process has one folder below the system's temporary folder and holds a lock in it until it ends. Whoever can take
the lock of such a folder knows that its process is dead, whatever process ids mean where it ran.
"""

from __future__ import annotations

import atexit
import logging
import os
import shutil
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

logger = logging.getLogger(__name__)

PREFIX, LOCK = "unetflow-", ".lock"
MAX_SOCKET_FOLDER_LENGTH = 75
"""Bytes: ``multiprocessing`` adds ``/pymp-12345678/listener-12345678``."""


@dataclass(frozen=True, slots=True)
class _Held:
    """The folder of a process; the lock lasts as long as the descriptor is open."""

    pid: int
    folder: Path
    descriptor: int


_held: _Held | None = None
_guard = threading.Lock()


@contextmanager
def temporary_folder(name: str) -> Iterator[Path]:
    """Yield an empty folder that is removed when the block ends."""
    folder = make_folder(name)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def make_folder(name: str) -> Path:
    """Make an empty folder; whoever is done with it removes it, at the latest the end of this process."""
    return Path(tempfile.mkdtemp(prefix=f"{name}-", dir=_process_folder()))


def shorten_socket_paths() -> None:
    """Let processes started with ``multiprocessing`` meet in ``/tmp`` where the temporary folder's path is too long.

    It puts Unix sockets into a folder of its own (mode 0700), and the kernel limits their paths to 107 bytes.
    """
    configured = tempfile.gettempdir()
    if len(os.fsencode(configured)) <= MAX_SOCKET_FOLDER_LENGTH:
        return
    from multiprocessing import util

    with _guard:
        tempfile.tempdir = "/tmp"
        try:
            util.get_temp_dir()  # made once, and handed on to children
        finally:
            tempfile.tempdir = configured


def find_leftovers() -> list[Path]:
    """Find the folders of this user's dead processes."""
    candidates = Path(tempfile.gettempdir()).glob(f"{PREFIX}*/{LOCK}")
    return sorted(lock.parent for lock in candidates if _is_abandoned(lock))


def remove_leftovers() -> None:
    """Remove the folders of this user's dead processes."""
    for folder in find_leftovers():
        logger.info("removing %s, which a process that was killed left behind", folder)
        shutil.rmtree(folder, ignore_errors=True)


def _process_folder() -> Path:
    global _held
    with _guard:
        while _held is None or _held.pid != os.getpid() or not _held.folder.is_dir():  # a fork has its own
            _held = _make_process_folder()
        return _held.folder


def _make_process_folder() -> _Held | None:
    """Make and lock a folder; None where somebody who removes left-overs came between the two."""
    folder = Path(tempfile.mkdtemp(prefix=PREFIX))
    descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        _take_lock(descriptor)
    except BlockingIOError:
        os.close(descriptor)
        return None
    except (OSError, ImportError):  # without locks nobody can take it, so nobody removes the folder
        pass
    atexit.register(_remove_own, folder, os.getpid())
    return _Held(os.getpid(), folder, descriptor)


def _take_lock(descriptor: int) -> None:
    """Take the lock or raise BlockingIOError; it ends with the process."""
    import fcntl  # not on Windows, where registered models must still load

    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _remove_own(folder: Path, pid: int) -> None:
    if os.getpid() == pid:
        shutil.rmtree(folder, ignore_errors=True)


def _is_abandoned(lock: Path) -> bool:
    with suppress(OSError):
        if lock.parent.is_symlink() or lock.lstat().st_uid != os.getuid():
            return False
        descriptor = os.open(lock, os.O_RDWR | os.O_NOFOLLOW)
        try:
            _take_lock(descriptor)
        finally:
            os.close(descriptor)
        return True
    return False  # held, gone, or without locks
