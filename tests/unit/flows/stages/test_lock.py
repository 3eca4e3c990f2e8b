"""The lock of a stage, where the file system has locks and where it has none."""

from __future__ import annotations

import errno
import threading
from pathlib import Path
from typing import IO, Any

import pytest

from flows.stages import lock
from flows.stages.attempt import Attempt
from flows.stages.lease import FOLDER, LeaseLostError, Pace
from flows.stages.lock import hold_lock, try_lock
from flows.stages.stage import Stage, find_record, run_stage
from tests.support.records import CountFigures, CountingStages


@pytest.fixture(params=["locks", "no locks"])
def _file_system(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "no locks":
        without_locks(monkeypatch)


def without_locks(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(lock.fcntl, "flock", refuse)


class ReadOnly:
    """A path on a disk that is mounted read-only. (Root may write to what is merely of another mode.)"""

    def __init__(self, path: Path) -> None:
        self.exists, self.path = path.exists, path

    def open(self, mode: str = "r") -> Any:
        if mode == "w":
            raise OSError(errno.EROFS, "Read-only file system")
        return self.path.open(mode)


def test_a_lock_that_cannot_be_written_to_is_opened_to_read(tmp_path: Path) -> None:
    path: Any = ReadOnly(tmp_path / ".lock")
    with pytest.raises(OSError, match="Read-only file system"):
        lock._open(path)
    (tmp_path / ".lock").touch()
    with lock._open(path) as file:
        assert file.mode == "r"


def test_on_nfs_a_reader_waits_for_writers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """NFS locks ranges of bytes: one for writing needs a file that is open to write."""
    flock = lock.fcntl.flock

    def nfs(file: IO[str], kind: int) -> None:
        if kind & lock.fcntl.LOCK_EX and file.mode == "r":
            raise OSError(errno.EBADF, "Bad file descriptor")
        flock(file, kind)

    monkeypatch.setattr(lock.fcntl, "flock", nfs)
    (tmp_path / ".lock").touch()
    with (tmp_path / ".lock").open() as reader:
        with hold_lock(str(tmp_path)), pytest.raises(BlockingIOError):
            lock._take(reader, tmp_path, wait=False)
        lock._take(reader, tmp_path, wait=True)


@pytest.mark.usefixtures("_file_system")
def test_a_lock_that_is_held_is_not_free(tmp_path: Path) -> None:
    with hold_lock(str(tmp_path)) as require:
        require()
        with try_lock(str(tmp_path)) as is_held:
            assert not is_held
    with try_lock(str(tmp_path)) as is_held:
        assert is_held


def test_without_locks_two_at_once_compute_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without_locks(monkeypatch)
    monkeypatch.setattr(lock, "PACE", Pace(poll=0.01))
    stages = CountingStages()
    threads = [threading.Thread(target=run_stage, args=(stages.plan(), str(tmp_path))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(stages.attempts) == 1


def test_a_stage_whose_lock_was_lost_leaves_no_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without_locks(monkeypatch)

    def compute(attempt: Attempt) -> CountFigures:
        for claim in (Path(attempt.stage_uri) / FOLDER).iterdir():
            claim.unlink()  # as whoever takes over does
        return CountFigures()

    stage = Stage("count", {}, (), compute, CountFigures)
    with pytest.raises(LeaseLostError):
        run_stage(stage, str(tmp_path))
    assert find_record(stage, str(tmp_path)) is None
