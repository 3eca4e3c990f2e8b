"""Where Rays keep their files: in a private folder, with a path short enough for sockets."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from data_pipelines.errors import ConfigError
from flows.cluster import folders
from flows.cluster.folders import MAX_FOLDER_LENGTH, find_ray_folders, local_parent, ray_folder


def test_a_long_path_falls_back_to_a_short_private_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    short, long = tmp_path / "short", tmp_path / ("x" * MAX_FOLDER_LENGTH)
    monkeypatch.setattr(folders, "_short_parent", lambda: short)
    assert ray_folder(long, "ray") == short / "ray"
    assert short.stat().st_mode & 0o777 == 0o700
    assert not long.exists()
    monkeypatch.setattr(folders, "MAX_FOLDER_LENGTH", 500)
    assert ray_folder(long, "ray") == long / "ray"
    assert long.stat().st_mode & 0o777 == 0o700


def test_the_short_one_is_this_users_and_refused_where_it_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    folder = folders._short_parent()
    assert folder == Path(f"/tmp/unetflow-{os.geteuid()}")
    assert len(str(folder / "ray")) <= MAX_FOLDER_LENGTH


def test_a_squatted_folder_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    squatted = tmp_path / "short"
    squatted.mkdir()
    squatted.chmod(0o777)
    monkeypatch.setattr(folders, "_short_parent", lambda: squatted)
    with pytest.raises(ConfigError, match="this user's alone"):
        ray_folder(tmp_path / ("x" * MAX_FOLDER_LENGTH), "ray")


def test_all_of_them_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNETFLOW_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setattr(folders, "_short_parent", lambda: tmp_path / "short")
    assert list(find_ray_folders()) == []
    made = [local_parent() / "ray", tmp_path / "state" / "unetflow" / "stack" / "ray", tmp_path / "short" / "ray"]
    for folder in made:
        folder.mkdir(parents=True)
    assert list(find_ray_folders()) == made
