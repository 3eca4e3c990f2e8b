"""Prefect's temporary server ends with the process that started it, however that ends.

Prefect stops it in an exit handler, which a SIGKILL, or a Ray that ends the process, never calls: the server would run
until somebody finds it.
"""

from __future__ import annotations

import subprocess
from typing import Any

from prefect.server.api.server import SubprocessASGIServer

WATCH = 'read -r _; kill -KILL "$0" 2>/dev/null'
"""Script of the watcher: its input ends when the last process that holds the other end of the pipe is gone."""


_start = SubprocessASGIServer._run_uvicorn_command
"""Prefect's own, the one place in which the server's process is known from its start on."""


def watch_temporary_servers() -> None:
    """Start a watcher beside every temporary server that this process will start."""
    SubprocessASGIServer._run_uvicorn_command = _start_watched  # type: ignore[method-assign]


def _start_watched(self: SubprocessASGIServer) -> subprocess.Popen[Any]:
    process = _start(self)
    _watch(process.pid)
    return process


_watchers: list[subprocess.Popen[bytes]] = []
"""Kept for as long as this process lives: each holds an end of a pipe."""


def _watch(pid: int) -> None:
    # In a session of its own: what ends all of a terminal's or a service's processes may spare the server alone.
    words = ["/bin/sh", "-c", WATCH, str(pid)]
    _watchers.append(subprocess.Popen(words, stdin=subprocess.PIPE, start_new_session=True))
