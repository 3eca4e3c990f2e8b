"""Files and folders that appear complete or not at all."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from data_pipelines.atomic import atomic_file, atomic_files, atomic_folder, remove_leftovers

KILLED = """
import os, signal, sys
from pathlib import Path
from data_pipelines.atomic import atomic_file, atomic_folder
with atomic_file(Path(sys.argv[1]) / "a.tar") as file, atomic_folder(Path(sys.argv[1]) / "set") as folder:
    file.touch()
    (folder / "a").touch()
    os.kill(os.getpid(), signal.SIGKILL)
"""


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*"))


def test_a_file_appears_when_the_block_ends(tmp_path: Path) -> None:
    target = tmp_path / "new" / "a.nii.gz"
    with atomic_file(target) as temporary:
        temporary.write_bytes(b"abc")
        assert temporary.parent == target.parent  # renaming is atomic within one file system
        assert temporary.name.startswith(".")
        assert temporary.name.endswith(".nii.gz")
        assert not target.exists()
    assert target.read_bytes() == b"abc"
    assert names(target.parent) == ["a.nii.gz"]


def test_files_appear_together_when_the_block_ends(tmp_path: Path) -> None:
    target = tmp_path / "new" / "b.nii"
    for content in ("old", "new"):
        with atomic_files(target) as temporary:
            for name in ("a.nii", "b.nii", "c.nii"):
                temporary.with_name(name).write_text(content)
            assert "new" not in {path.read_text() for path in target.parent.glob("[abc].nii")}
        assert {path.read_text() for path in target.parent.glob("[abc].nii")} == {content}
    with pytest.raises(ZeroDivisionError), atomic_files(target) as temporary:
        temporary.write_text("broken")
        1 / 0  # noqa: B018
    assert names(target.parent) == ["a.nii", "b.nii", "c.nii"]
    assert target.read_text() == "new"


def test_a_failed_file_leaves_the_older_one(tmp_path: Path) -> None:
    target = tmp_path / "a"
    target.write_bytes(b"old")
    with pytest.raises(KeyboardInterrupt), atomic_file(target) as temporary:
        temporary.write_bytes(b"half")
        raise KeyboardInterrupt
    assert target.read_bytes() == b"old"
    assert names(tmp_path) == ["a"]


def test_a_file_that_was_not_written_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), atomic_file(tmp_path / "a"):
        pass
    assert names(tmp_path) == []


def test_a_folder_appears_when_the_block_ends(tmp_path: Path) -> None:
    target = tmp_path / "new" / "set"
    with atomic_folder(target) as temporary:
        (temporary / "a").write_bytes(b"abc")
        assert temporary.name.startswith(".")
        assert not target.exists()
    assert names(tmp_path / "new") == ["a", "set"]


def test_a_failed_folder_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), atomic_folder(tmp_path / "set") as temporary:
        (temporary / "a").write_bytes(b"abc")
        raise RuntimeError
    assert names(tmp_path) == []


def test_the_faster_of_two_writers_wins(tmp_path: Path) -> None:
    with atomic_folder(tmp_path / "set") as slow:
        (slow / "a").write_bytes(b"same")
        with atomic_folder(tmp_path / "set") as fast:
            (fast / "a").write_bytes(b"same")
            (fast / "mark").touch()
    assert names(tmp_path) == ["a", "mark", "set"]


def test_an_empty_folder_is_replaced_and_a_file_is_not(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with atomic_folder(tmp_path / "empty") as temporary:
        (temporary / "a").touch()
    assert names(tmp_path) == ["a", "empty"]
    (tmp_path / "file").write_bytes(b"mine")
    with pytest.raises(OSError), atomic_folder(tmp_path / "file") as temporary:
        (temporary / "a").touch()
    assert (tmp_path / "file").read_bytes() == b"mine"
    assert names(tmp_path) == ["a", "empty", "file"]


def test_what_a_killed_process_was_writing_is_removed_and_nothing_else(tmp_path: Path) -> None:
    with atomic_file(tmp_path / "mine.tar") as mine:
        mine.touch()
        (tmp_path / ".partial-of-another-program").touch()
        subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], check=False)
        assert len(names(tmp_path)) == 5
        remove_leftovers(tmp_path)
        assert names(tmp_path) == sorted([mine.name, ".partial-of-another-program"])


def test_long_names(tmp_path: Path) -> None:
    target = tmp_path / f"{'a' * 248}.nii.gz"
    with atomic_file(target) as temporary:
        temporary.touch()
        assert temporary.name.endswith("a.nii.gz")
    assert target.exists()
