"""What killed processes left: known by a free lock, a dead process id, or age."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from data_pipelines import temporary
from flows.cleanup.machine import find_sessions, find_temporary
from flows.cluster import folders


@pytest.fixture
def dead_pid() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def old(folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / "file").write_text("0123456789")
    for path in (folder / "file", folder):
        os.utime(path, (0, 0))
    return folder


def test_temporary_folders_go_by_lock_or_by_age(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(temporary.tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(temporary, "_held", None)
    temporary.make_folder("held")
    abandoned = old(tmp_path / "unetflow-abandoned")
    (abandoned / ".lock").touch()
    earlier = old(tmp_path / "unetflow-checkpoint-a1b2c3d4")
    old(tmp_path / "unetflow-ray-1000")
    old(tmp_path / "checkpoint-a1b2c3d4")
    (tmp_path / "unetflow-folder-a1b2c3d4").mkdir()
    found = {Path(each.uri): each.size for each in find_temporary(before=time.time() - 60)}
    assert found == {abandoned: 10, earlier: 10}


def test_sessions_of_living_or_recent_rays_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dead_pid: int) -> None:
    monkeypatch.setenv("UNETFLOW_CACHE", str(tmp_path))
    monkeypatch.setattr(folders, "_short_parent", lambda: tmp_path / "short")
    rays = tmp_path / "run" / "ray"
    base = "session_2026-01-01_00-00-0"
    ended = old(rays / f"{base}1_000000_{dead_pid}")
    old(rays / f"{base}2_000000_{os.getpid()}")
    recent = old(rays / f"{base}3_000000_{dead_pid}")
    (recent / "logs").mkdir()
    (recent / "logs" / "raylet.out").touch()
    named = old(rays / f"{base}4_000000_{dead_pid}")
    old(rays / "something")
    (rays / "session_latest").symlink_to(ended)
    words = [sys.executable, "-c", "print(flush=True); input()", str(named / "sockets")]
    process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()  # its command line is there only once it runs
    try:
        assert [each.uri for each in find_sessions(before=time.time() - 60)] == [str(ended)]
    finally:
        process.communicate(b"\n")
    assert [each.uri for each in find_sessions(before=time.time() - 60)] == [str(ended), str(named)]
