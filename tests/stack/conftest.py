"""The stack that these tests share: started as ``make stack`` does, with nothing left of it afterwards."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.stack.client import Client, read_variables
from tests.support.project import CHECKOUT
from tests.support.serving import wait_for


@pytest.fixture(scope="session")
def client() -> Iterator[Client]:
    """The stack, started as ``make stack`` does; everything it started has to be gone afterwards."""
    import psutil

    if os.geteuid() == 0 and subprocess.run(["unshare", "--user", "true"], capture_output=True).returncode:
        pytest.skip("PostgreSQL does not run as root, and this machine makes no user namespaces: run as another user")
    folder = Path(tempfile.mkdtemp(prefix="ufs-"))  # short: sockets lie below it
    (folder / "home").mkdir()
    log = folder / "stack.log"
    with log.open("w") as stream:
        stack = subprocess.Popen(
            [sys.executable, "-m", "infra.stack", "--folder", str(folder / "s")],
            cwd=CHECKOUT,
            env=os.environ | {"HOME": str(folder / "home")},
            stdout=stream,
            stderr=subprocess.STDOUT,
        )
    try:
        wait_for(lambda: "Ctrl-C stops" in log.read_text(), lambda: log.read_text(), 300, alive=stack)
        yield Client(folder, read_variables(folder / "s" / "stack.env"), stack.pid)
        started = [stack.pid, *(process.pid for process in psutil.Process(stack.pid).children(recursive=True))]
        stack.send_signal(signal.SIGINT)
        assert stack.wait(timeout=90) == 0, log.read_text()
        assert [pid for pid in started if psutil.pid_exists(pid)] == []
    finally:
        stack.kill()
        shutil.rmtree(folder, ignore_errors=True)
