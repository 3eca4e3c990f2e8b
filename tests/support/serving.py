"""Waiting for servers, and asking a registered model over HTTP."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

BIN = Path(sys.executable).parent


def free_port() -> int:
    """A port of loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def answers(url: str) -> bool:
    """Whether a server there says that all is well."""
    try:
        with urllib.request.urlopen(url, timeout=5):
            return True
    except (urllib.error.URLError, OSError):
        return False


def wait_for(
    condition: Callable[[], bool],
    tell: Callable[[], str],
    seconds: float,
    alive: subprocess.Popen[Any] | None = None,
) -> None:
    """Until it holds, while the process lives."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, tell()
        assert alive is None or alive.poll() is None, tell()
        time.sleep(0.1)


def ask_served(
    model: str, rows: Mapping[str, Sequence[Any]], environment: Mapping[str, str], folder: Path
) -> list[Any]:
    """What ``mlflow models serve`` answers curl: the model's predictions for a table of columns."""
    port = free_port()
    log = folder / "serve.log"
    with log.open("w") as stream:
        server = subprocess.Popen(
            [str(BIN / "mlflow"), "models", "serve", "-m", model, "--env-manager", "local", "-p", str(port)],
            env={**environment, "PATH": f"{BIN}:{os.environ['PATH']}"},
            cwd=folder,
            stdout=stream,
            stderr=stream,
            start_new_session=True,
        )
    try:
        wait_for(lambda: answers(f"http://127.0.0.1:{port}/ping"), log.read_text, 120, alive=server)
        table = {"columns": list(rows), "data": [list(row) for row in zip(*rows.values(), strict=True)]}
        words = ["curl", "--fail-with-body", "--silent", "-H", "Content-Type: application/json"]
        words += ["-d", json.dumps({"dataframe_split": table}), f"http://127.0.0.1:{port}/invocations"]
        done = subprocess.run(words, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + log.read_text()
        predictions: list[Any] = json.loads(done.stdout)["predictions"]
        return predictions
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait()
