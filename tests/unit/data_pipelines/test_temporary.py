"""Temporary folders: removed when done, found again after a kill, and never taken from a living process."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from data_pipelines import temporary
from data_pipelines.temporary import find_leftovers, make_folder, remove_leftovers, temporary_folder

HOLD = """
import sys
from data_pipelines.temporary import make_folder
print(make_folder("checkpoint"), flush=True)
sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A temporary folder of the system for this test alone."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(temporary.tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(temporary, "_held", None)
    return tmp_path


def test_a_folder_lasts_as_long_as_its_block(own_folder: Path) -> None:
    with pytest.raises(KeyboardInterrupt), temporary_folder("file") as folder:
        (folder / "a.txt").write_text("x")
        assert folder.parent.parent == own_folder
        assert folder.parent.name.startswith("unetflow-")
        assert folder.stat().st_mode & 0o077 == 0, "others read nothing"
        raise KeyboardInterrupt
    assert not folder.exists()


def test_what_a_killed_process_leaves_is_removed_and_what_a_living_one_holds_stays(own_folder: Path) -> None:
    mine = make_folder("checkpoint")
    other = subprocess.Popen([sys.executable, "-c", HOLD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert other.stdout is not None
    theirs = Path(other.stdout.readline().strip())
    assert theirs.is_dir()
    remove_leftovers()
    assert mine.is_dir()
    assert theirs.is_dir()
    other.send_signal(signal.SIGKILL)
    other.communicate()
    assert find_leftovers() == [theirs.parent]
    remove_leftovers()
    assert mine.is_dir()
    assert not theirs.parent.exists()


def test_a_process_that_ends_leaves_nothing(own_folder: Path) -> None:
    subprocess.run([sys.executable, "-c", HOLD], input="", text=True, check=True, stdout=subprocess.DEVNULL)
    assert list(own_folder.iterdir()) == []


def test_a_fork_has_a_folder_of_its_own(own_folder: Path) -> None:
    """Its end must not remove the folder of its parent."""
    mine = make_folder("a")
    reader, writer = os.pipe()
    if not (child := os.fork()):
        os.write(writer, str(make_folder("b")).encode())
        os._exit(0)
    os.waitpid(child, 0)
    assert Path(os.read(reader, 1000).decode()).parent != mine.parent
    assert mine.is_dir()


@pytest.mark.parametrize("name", ["unetflow-other", "other-unetflow"])
def test_folders_without_a_lock_and_of_others_are_left_alone(own_folder: Path, name: str) -> None:
    (own_folder / name).mkdir()
    (own_folder / "elsewhere").mkdir()
    (own_folder / "elsewhere" / ".lock").touch()
    (own_folder / "unetflow-link").symlink_to(own_folder / "elsewhere")
    assert find_leftovers() == []


MEETING = """
import multiprocessing, tempfile
from multiprocessing.connection import Listener
from data_pipelines.temporary import shorten_socket_paths

def listen():
    with Listener(family="AF_UNIX") as listener:
        return listener.address

if __name__ == "__main__":
    before = tempfile.gettempdir()
    shorten_socket_paths()
    with multiprocessing.get_context("forkserver").Pool(1) as pool:
        print(pool.apply(listen))
    assert tempfile.gettempdir() == before
"""


@pytest.mark.parametrize("length", [10, 120])
def test_processes_meet_however_long_the_path_of_the_temporary_folder_is(tmp_path: Path, length: int) -> None:
    (tmp_path / "meeting.py").write_text(MEETING)
    folder = Path(tempfile.mkdtemp(dir="/tmp")) / ("x" * length)
    folder.mkdir()
    try:
        words = [sys.executable, str(tmp_path / "meeting.py")]
        environment = os.environ | {"TMPDIR": str(folder), "PYTHONPATH": os.pathsep.join(sys.path)}
        done = subprocess.run(words, env=environment, capture_output=True, text=True)
    finally:
        shutil.rmtree(folder.parent)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(str(folder) if length == 10 else "/tmp/pymp-")
