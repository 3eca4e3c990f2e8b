"""What every test can count on: nothing of this user's home, caches, servers or clusters is read or written."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import pytest
from hypothesis import settings

# A slow machine is no failure, a landing is no lottery, and examples are not kept in the working folder.
settings.register_profile("unetflow", deadline=None, database=None, derandomize="CI" in os.environ)
settings.load_profile("unetflow")

OUTSIDE = ("PREFECT_", "MLFLOW_", "RAY_", "UNETFLOW_", "XDG_")
"""Beginnings of the variables that lead out of the test session."""


HOME = Path(tempfile.mkdtemp(prefix="uf-"))
"""An empty home whose path is short: Ray's Unix sockets lie below the cache and have at most 107 bytes."""

INSIDE = {name: value for name, value in os.environ.items() if not name.startswith(OUTSIDE)} | {
    "HOME": str(HOME),
    "UNETFLOW_CACHE": str(HOME / "cache"),
    "UNETFLOW_STORAGE": str(HOME / "storage"),
    "OMP_NUM_THREADS": "1",  # processes run side by side: threads that wait for a core spin, many times slower
    "RAY_worker_niceness": "0",  # Ray's default, 15, starves its workers wherever anything else runs
}

_environment = mock.patch.dict(os.environ, INSIDE, clear=True)
_environment.start()  # before tests are collected: some modules set variables when they are imported


@pytest.fixture(scope="session", autouse=True)
def isolated_home() -> Iterator[Path]:
    """The empty home that this session's environment names; it is removed at the end."""
    yield HOME
    if "ray" in sys.modules:
        sys.modules["ray"].shutdown()


def pytest_unconfigure() -> None:
    _environment.stop()
    shutil.rmtree(HOME, ignore_errors=True)
