"""Default folders: a user without a home, or with one that is read-only, is told what to set."""

from __future__ import annotations

from pathlib import Path

import pytest

from data_pipelines import storage
from data_pipelines.errors import ConfigError
from flows.config import locations
from flows.config.locations import state_folder, writable_folder


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
