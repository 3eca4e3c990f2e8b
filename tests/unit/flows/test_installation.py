"""The one place that knows where the code lies: in a checkout, and as a copy in another folder."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from flows import installation
from flows.installation import CODE_VARIABLE, LOCK, PACKAGES, code_version, lock_file, source_root
from tests.support.project import CHECKOUT

REPORT = """
import json
from pathlib import Path
import flows
from flows.installation import code_version, lock_file, source_root
lock = lock_file()
print(json.dumps([str(source_root()), str(lock) if lock else None, code_version(), flows.__file__]))
"""


@pytest.fixture(autouse=True)
def _no_given_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(CODE_VARIABLE, raising=False)


def report(folder: Path, *lines: str) -> list[str | None]:
    """Run ``REPORT`` in a process that imports the packages from ``folder``, before any that are installed."""
    environment = {name: value for name, value in os.environ.items() if name != CODE_VARIABLE}
    environment |= {"PYTHONPATH": str(folder)} | dict(line.split("=") for line in lines)
    done = subprocess.run([sys.executable, "-c", REPORT], env=environment, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found: list[str | None] = json.loads(done.stdout)
    return found


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The packages in a folder without history and lock, as a job and a registered model have them."""
    folder = tmp_path_factory.mktemp("copied")
    for package in PACKAGES:
        shutil.copytree(CHECKOUT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


def test_a_checkout_is_found_with_its_lock_and_commit() -> None:
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=CHECKOUT, capture_output=True, text=True).stdout.strip()
    assert source_root() == CHECKOUT
    assert lock_file() == CHECKOUT / LOCK
    assert code_version().removesuffix("-changed") == commit


def test_a_copy_has_neither_lock_nor_commit(copy: Path) -> None:
    root, lock, version, imported = report(copy)
    assert root == str(copy.resolve())
    assert imported is not None
    assert Path(imported).is_relative_to(copy)
    assert lock is None
    assert version is not None
    assert version.startswith("unetflow ")


def test_a_job_is_told_the_commit_of_its_copy(copy: Path) -> None:
    assert report(copy, f"{CODE_VARIABLE}=abc123")[2] == "abc123"


def test_a_lock_beside_the_copy_is_found(copy: Path) -> None:
    (copy / LOCK).write_text("numpy==2\n")
    try:
        assert report(copy)[1] == str(copy.resolve() / LOCK)
    finally:
        (copy / LOCK).unlink()


@pytest.mark.parametrize("changed", [False, True])
def test_changed_files_are_told_of(changed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.py").write_text("1\n")
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
    for words in (["init", "-q"], ["add", "a.py"], [*identity, "commit", "-q", "-m", "one"]):
        subprocess.run(["git", "-C", str(tmp_path), *words], check=True)
    (tmp_path / "untracked.py").write_text("")
    if changed:
        (tmp_path / "a.py").write_text("2\n")
    monkeypatch.setattr(installation, "source_root", lambda: tmp_path)
    assert len(code_version().removesuffix("-changed")) == 40
    assert code_version().endswith("-changed") is changed
