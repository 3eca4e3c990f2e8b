"""``unetflow gc``: lists what goes and how much, and removes nothing unless told so."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from flows.cleanup import collect
from flows.cleanup.garbage import Garbage
from flows.cli import base, run_command
from flows.cli.gc import garbage_text


@pytest.fixture
def attempt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An attempt of 2.5 MB that may go; results are printed to the captured stdout."""
    folder = tmp_path / "train" / "key" / "attempt"
    folder.mkdir(parents=True)
    monkeypatch.setattr(base, "_result_fd", 1)
    monkeypatch.setattr(
        collect, "find_garbage", lambda root, keep_days: [Garbage("attempt", str(folder), 2_500_000)] * folder.exists()
    )
    return folder


def test_without_a_word_nothing_is_removed(attempt: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for arguments in (["gc"], ["gc", "--dry-run", "--yes"]):
        assert run_command(arguments) == 0
        out, _ = capfd.readouterr()
        assert attempt.is_dir()
        assert f"2.5 MB  attempt           {attempt}" in out
        assert "2.5 MB in all: 1 attempt (2.5 MB)" in out
    assert run_command(["gc"]) == 0
    assert "nothing was removed; the same command with --yes removes them" in capfd.readouterr().err


def test_told_so_it_is_removed_and_counted(attempt: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert run_command(["gc", "--yes"]) == 0
    assert not attempt.exists()
    assert "removed 1 of 1, 2.5 MB" in capfd.readouterr().out
    assert run_command(["gc", "--yes"]) == 0
    assert "nothing to remove" in capfd.readouterr().out


def test_as_json(attempt: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert run_command(["gc", "--yes", "--json"]) == 0
    printed = json.loads(capfd.readouterr().out)
    assert printed == {
        "found": [{"kind": "attempt", "uri": str(attempt), "size": 2_500_000}],
        "removed": [str(attempt)],
    }


def test_kinds_are_summed_up() -> None:
    garbage = [
        Garbage("attempt", "/a", 150_000_000),
        Garbage("attempt", "/b", 50_000_000),
        Garbage("Ray session", "/c", 1_000_000),
    ]
    assert garbage_text(garbage).splitlines()[-1] == "0.2 GB in all: 2 attempts (0.2 GB), 1 Ray session (1.0 MB)"
