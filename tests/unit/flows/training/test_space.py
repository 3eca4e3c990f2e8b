"""Space for checkpoints: forecast before a training starts, and one message when a disk is full all the same."""

from __future__ import annotations

import errno
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from flows.training import space
from flows.training.space import check_space, full_disk, is_full, num_checkpoints
from tests.support.training import SPEC

MB = 1_000_000


class Usage(NamedTuple):
    """Result of ``shutil.disk_usage``."""

    total: int
    used: int
    free: int


@pytest.fixture
def two_disks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A storage with 35 MB free and a temporary folder on another disk with 15 MB free."""
    storage, temporary = tmp_path / "storage", tmp_path / "temporary"
    storage.mkdir()
    temporary.mkdir()
    monkeypatch.setattr(space.tempfile, "gettempdir", lambda: str(temporary))
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(0, 0, 35 * MB if Path(path) == storage else 15 * MB))
    monkeypatch.setattr(space, "_device", lambda path: int(path == storage))
    return storage


@pytest.mark.parametrize(
    ("keep", "every", "num_steps", "step", "expected"),
    [(3, 10, 100, 0, 4), (3, 10, 100, 70, 3), (3, 10, 95, 90, 1), (3, 10, 100, 100, 0), (1, 1000, 100, 0, 1)],
)
def test_as_many_checkpoints_as_are_kept_and_one_more(
    keep: int, every: int, num_steps: int, step: int, expected: int
) -> None:
    spec = SPEC.model_copy(update={"keep_checkpoints": keep, "checkpoint_every_steps": every, "num_steps": num_steps})
    assert num_checkpoints(spec, step) == expected


def test_checkpoints_of_the_attempt_that_are_there_need_no_room() -> None:
    spec = SPEC.model_copy(update={"keep_checkpoints": 2, "checkpoint_every_steps": 10, "num_steps": 100})
    assert [num_checkpoints(spec, 50, num_there) for num_there in range(4)] == [3, 2, 1, 1]
    assert num_checkpoints(spec, 100, 2) == 0


def test_a_storage_that_is_too_small_is_told_before_training(two_disks: Path) -> None:
    check_space(str(two_disks), 8 * MB, number=4)
    with pytest.raises(OSError, match=r"storage has 35.00 MB free, and this training needs 36.00 MB there") as caught:
        check_space(str(two_disks), 9 * MB, number=4)
    assert caught.value.errno == errno.ENOSPC


def test_a_temporary_folder_that_is_too_small_is_told_too(two_disks: Path) -> None:
    with pytest.raises(OSError, match=r"temporary has 15.00 MB free, and this training needs 16.00 MB there"):
        check_space(str(two_disks), 16 * MB, number=1)
    with pytest.raises(OSError, match=r"temporary has 15\.00 MB free"):
        check_space("s3://bucket/runs", 16 * MB, number=4)


def test_one_disk_holds_both(two_disks: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(space, "_device", lambda path: 1)
    check_space(str(two_disks), 3 * MB, number=4)
    with pytest.raises(OSError, match=r"needs 20\.00 MB there, of which 4\.00 MB in this folder"):
        check_space(str(two_disks), 4 * MB, number=4)


def caused(error: BaseException) -> Exception:
    outer = RuntimeError("worker 0 failed")
    outer.__cause__ = error
    return outer


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), True),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), True),
        (ValueError("Error while serializing: I/O error: No space left on device (os error 28)"), True),
        (caused(OSError(errno.ENOSPC, "full")), True),
        (OSError(errno.EIO, "Input/output error"), False),
        (caused(MemoryError()), False),
    ],
)
def test_a_full_disk_is_known_by_number_and_words(error: BaseException, expected: bool) -> None:
    assert is_full(error) is expected


def test_a_full_disk_is_one_message_with_what_is_needed_and_what_there_is(two_disks: Path) -> None:
    told: Any = full_disk(caused(OSError(errno.ENOSPC, "No space left on device")), str(two_disks), 200 * MB, number=4)
    assert told.errno == errno.ENOSPC
    assert "15.00 MB in " in str(told)
    assert f"35.00 MB in {two_disks}" in str(told)
    assert "4 checkpoints of 0.20 GB" in str(told)
    assert "\n" not in str(told)


def test_the_forecast_of_a_worker_keeps_its_words(two_disks: Path) -> None:
    with pytest.raises(OSError, match="this training needs") as caught:
        check_space(str(two_disks), 16 * MB, number=4)
    assert full_disk(caught.value, str(two_disks), 16 * MB, 4) is caught.value
