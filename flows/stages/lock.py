"""The lock of a stage's folder: ``flock`` where the file system has it, else a lease that is renewed."""

from __future__ import annotations

import errno
import fcntl
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from data_pipelines import storage
from flows.stages.lease import Pace, hold_lease, try_lease

logger = logging.getLogger(__name__)

FILE = ".lock"
PACE = Pace()
UNSUPPORTED = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)
"""Errors of ``flock`` on a file system without it, such as NFS whose server has no lock daemon."""


@contextmanager
def hold_lock(uri: str) -> Iterator[Callable[[], None]]:
    """Hold the lock of a folder for the length of the block; waits for whoever holds it.

    The block gets a function to call before it publishes anything: it raises LeaseLostError where the lock was lost.
    """
    lock = _flock(storage.local_path(uri), wait=True) if storage.is_local(uri) else None
    if lock is None:
        with hold_lease(uri, PACE) as lease:
            yield lease.require
        return
    with lock:
        yield lambda: None  # the kernel takes it from nobody but a dead process


@contextmanager
def try_lock(uri: str) -> Iterator[bool]:
    """Hold the lock of a folder, if nobody else does; the block gets whether it is held."""
    try:
        lock = _flock(storage.local_path(uri), wait=False) if storage.is_local(uri) else None
    except BlockingIOError:
        yield False
        return
    if lock is None:
        with try_lease(uri, PACE) as is_held:
            yield is_held
        return
    with lock:
        yield True


def _flock(folder: Path, *, wait: bool) -> IO[str] | None:
    """Return the locked file; None where the file system has no locks. Without ``wait``, may raise BlockingIOError."""
    folder.mkdir(parents=True, exist_ok=True)
    lock = _open(folder / FILE)
    try:
        _take(lock, folder, wait=wait)
    except BaseException as error:
        lock.close()
        if isinstance(error, OSError) and error.errno in UNSUPPORTED:
            logger.info("%s: this file system has no locks (%s): a lease is used", folder, error.strerror)
            return None
        raise
    return lock


def _open(path: Path) -> IO[str]:
    """Open the file of a lock: to read where it is another user's, or the disk is read-only. It does to lock."""
    try:
        return path.open("w")
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS) or not path.exists():
            raise
        return path.open()


def _take(lock: IO[str], folder: Path, *, wait: bool) -> None:
    try:
        _lock(lock, fcntl.LOCK_NB)
    except BlockingIOError:
        if not wait:
            raise
        logger.warning("%s: another process is running this stage; waiting for it", folder)
        _lock(lock, 0)


def _lock(lock: IO[str], flags: int) -> None:
    """Lock the file. NFS takes that for writing of a file that is open to write alone; who may only read it waits for
    those who write."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | flags)
    except OSError as error:
        if error.errno != errno.EBADF:
            raise
        fcntl.flock(lock, fcntl.LOCK_SH | flags)
