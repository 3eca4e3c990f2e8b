"""Default folders: a user without a home, or with one that is read-only, is told what to set."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from data_pipelines import storage
from data_pipelines.errors import ConfigError
from flows.config import locations
from flows.config.locations import named_tracking_uri, private_folder, state_folder, storage_root, writable_folder


def test_a_user_without_a_home_is_told_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", nobody)
    monkeypatch.delenv("UNETFLOW_CACHE", raising=False)
    for ask in (state_folder, storage.cache_folder):
        with pytest.raises(ConfigError, match="no home folder: set HOME, or XDG_STATE_HOME and UNETFLOW_CACHE"):
            ask()
    monkeypatch.setenv("XDG_STATE_HOME", "/state")
    assert state_folder() == Path("/state/unetflow")


def test_a_folder_that_cannot_be_written_to_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert writable_folder(tmp_path / "a" / "b", "XDG_STATE_HOME").is_dir()
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"file/b cannot be written to: set XDG_STATE_HOME to a folder that can"):
        writable_folder(tmp_path / "file" / "b", "XDG_STATE_HOME")
    monkeypatch.setattr(locations.os, "access", lambda *_: False)  # root may write anywhere
    with pytest.raises(ConfigError, match="cannot be written to"):
        writable_folder(tmp_path, "XDG_STATE_HOME")


def test_a_private_folder_is_this_users_alone(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    before = os.umask(0)
    try:
        made = private_folder(tmp_path / "a" / "run")
    finally:
        os.umask(before)
    assert stat.S_IMODE(made.stat().st_mode) == 0o700
    made.chmod(0o755)
    assert stat.S_IMODE(private_folder(made).stat().st_mode) == 0o700


@pytest.mark.parametrize("mode", [0o720, 0o702, 0o777])
def test_a_folder_that_others_could_write_to_is_refused(tmp_path: Path, mode: int) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    folder.chmod(mode)
    with pytest.raises(
        ConfigError, match=rf"run must be this user's alone, and others may write to it \(mode {mode:o}"
    ):
        private_folder(folder)


def test_a_link_a_file_and_a_folder_that_everybody_may_rename_are_refused(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir(mode=0o700)
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with pytest.raises(ConfigError, match="link must be this user's alone, and is a link: remove it, or set UNETFLOW"):
        private_folder(tmp_path / "link")
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="file cannot be made"):
        private_folder(tmp_path / "file")
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    with pytest.raises(ConfigError, match=r"everybody may rename what is in .*/open \(mode 777\)"):
        private_folder(tmp_path / "open" / "run")
    (tmp_path / "open").chmod(0o1777)
    assert private_folder(tmp_path / "open" / "run").is_dir()


@pytest.mark.skipif(os.geteuid() != 0, reason="giving a folder to somebody else needs root")
def test_a_folder_of_somebody_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir(mode=0o700)
    os.chown(tmp_path / "run", 65534, 65534)
    with pytest.raises(ConfigError, match="belongs to user 65534"):
        private_folder(tmp_path / "run")


@pytest.mark.parametrize("uri", ["/data/what?", "/data/run#1", "s3://bucket/a?endpoint_override=http://x"])
def test_a_storage_whose_path_ends_early_is_refused(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="where a URI's path ends: name another folder"):
        storage_root(uri)
    monkeypatch.setenv("UNETFLOW_STORAGE", uri)
    with pytest.raises(ConfigError, match=r"the storage .* holds '[?#]'"):
        storage_root()


def test_a_password_in_the_address_of_mlflow_is_refused_without_showing_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "postgresql://me:hush@db/mlflow")
    with pytest.raises(ConfigError, match=r"postgresql://…@db holds a password") as raised:
        named_tracking_uri()
    assert "hush" not in str(raised.value)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "postgresql://me@db/mlflow")
    assert named_tracking_uri() == "postgresql://me@db/mlflow"


def test_a_storage_with_keys_is_refused_without_showing_them() -> None:
    with pytest.raises(ConfigError, match=r"s3://…@bucket holds keys") as raised:
        storage_root("s3://key:hush@bucket/runs")
    assert "hush" not in str(raised.value)
    assert storage_root("s3://bucket/a@b") == "s3://bucket/a@b"
