"""Another user of this machine reads nothing of a Ray that was started here, and replaces nothing in it."""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.commands import without_servers

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="running a command as another user needs root")

NOBODY = 65534
RAY = """
from flows.cluster.connection import connect_ray
connect_ray(1)
import os, ray
read = ray.remote(lambda: os.environ["MLFLOW_TRACKING_PASSWORD"])
print(ray.get(read.remote()), flush=True)
input()
"""
"""Starts a Ray, lets a worker of it use the credentials, and waits."""


@pytest.fixture(scope="module")
def secret() -> str:
    return secrets.token_hex(16)


@pytest.fixture(scope="module")
def cache(secret: str) -> Iterator[Path]:
    """The cache folder of a user whose Ray runs; everybody may look into it."""
    folder = Path(tempfile.mkdtemp(prefix="ufl-", dir="/tmp"))
    folder.chmod(0o755)
    variables = {"UNETFLOW_CACHE": str(folder), "MLFLOW_TRACKING_PASSWORD": secret}
    process = subprocess.Popen(
        [sys.executable, "-c", RAY],
        env=without_servers() | variables,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline().strip() == secret
        yield folder
    finally:
        process.communicate("\n")
        shutil.rmtree(folder, ignore_errors=True)


def as_nobody(*words: str) -> list[str]:
    """Run a command as a user without rights; return its lines."""
    done = subprocess.run(words, user=NOBODY, group=NOBODY, extra_groups=[], cwd="/", capture_output=True, text=True)
    return done.stdout.splitlines()


def test_another_user_sees_no_file_of_ray(cache: Path) -> None:
    assert any(cache.rglob("raylet.out")), "Ray's files are here"
    assert as_nobody("find", str(cache), "-mindepth", "1") == [str(cache / "run")]


def test_another_user_writes_nowhere(cache: Path) -> None:
    for folder in [cache, *(path for path in cache.rglob("*") if path.is_dir())]:
        planted = folder / "planted.py"
        as_nobody("touch", str(planted))
        assert not planted.exists(), folder
    logs = [path for path in cache.rglob("*") if path.is_file()]
    before = {path: path.stat().st_uid for path in logs}
    as_nobody("rm", "-f", *map(str, logs))
    assert {path: path.stat().st_uid for path in logs} == before


def test_no_file_of_ray_holds_the_credentials(cache: Path, secret: str) -> None:
    """Not even one that only this user may read: logs are sent around."""
    files = [path for path in cache.rglob("*") if path.is_file()]
    assert [path for path in files if secret.encode() in path.read_bytes()] == []
