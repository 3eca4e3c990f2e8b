"""Prefect's temporary server ends with a process that is killed."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import psutil

from tests.support.commands import without_servers

KILLED_AT_ONCE = """
import os, signal
from flows.running import prefect_settings
from flows.running.temporary_server import watch_temporary_servers
from prefect.server.api.server import SubprocessASGIServer

watch_temporary_servers()
watch_temporary_servers()  # once is enough
server = SubprocessASGIServer()
server.port = server.find_available_port()
print(server._run_uvicorn_command().pid, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_the_server_of_a_killed_process_ends(tmp_path: Path) -> None:
    """Seen to fail without the watcher: the server went on for ever."""
    with (tmp_path / "pid").open("w") as stream:  # no pipe, which a server that goes on would hold open
        done = subprocess.run([sys.executable, "-c", KILLED_AT_ONCE], env=without_servers(), stdout=stream)
    assert done.returncode == -signal.SIGKILL
    server = [process for process in psutil.process_iter() if process.pid == int((tmp_path / "pid").read_text())]
    alive = psutil.wait_procs(server, timeout=30)[1]
    for process in alive:
        process.kill()
    assert alive == []
