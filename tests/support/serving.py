"""Servers that tests start, and waiting for them: a Ray head with its dashboard, MLflow with a registered model."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

import psutil

from flows.cluster.connection import LOOPBACK_ONLY

BIN = Path(sys.executable).parent


def free_port() -> int:
    """A port of loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def answers(url: str, token: str = "") -> bool:
    """Whether a server there says that all is well."""
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"} if token else {})
    try:
        with urllib.request.urlopen(request, timeout=5):
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


class RayHead:
    """``with RayHead(log) as head:`` runs a Ray cluster of this machine with its dashboard.

    ``head.variables`` are those of a client that submits jobs to it. It can be killed, and started again: the address
    and the token stay.
    """

    def __init__(self, log: Path, environment: Mapping[str, str] | None = None) -> None:
        outside = environment if environment is not None else os.environ
        self.log = log
        self.dashboard, self.port = free_port(), free_port()
        self.variables = {
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": secrets.token_hex(32),
            "RAY_ADDRESS": f"http://127.0.0.1:{self.dashboard}",
        }
        own = {name: value for name, value in outside.items() if not name.startswith("RAY_")}
        path = {"RAY_ADDRESS": "", "PATH": f"{BIN}:{os.environ['PATH']}"}
        self._environment = own | LOOPBACK_ONLY | self.variables | path
        self._process: subprocess.Popen[bytes] | None = None
        self._folder = ""

    def start(self) -> None:
        """Start it, and wait until it takes jobs."""
        self._folder = tempfile.mkdtemp(prefix="ufr-")  # short: Ray's sockets lie below it
        words = [str(BIN / "ray"), "start", "--head", "--block", "--disable-usage-stats", "--num-cpus", "2"]
        words += ["--port", str(self.port), "--dashboard-port", str(self.dashboard)]
        words += ["--dashboard-agent-listen-port", str(free_port()), "--object-store-memory", str(300 << 20)]
        words += ["--temp-dir", f"{self._folder}/r"]
        with self.log.open("w") as stream:
            self._process = subprocess.Popen(
                words, env=self._environment, stdout=stream, stderr=stream, start_new_session=True
            )
        address, token = self.variables["RAY_ADDRESS"], self.variables["RAY_AUTH_TOKEN"]
        wait_for(lambda: answers(f"{address}/api/version", token), self.log.read_text, 120, alive=self._process)

    def processes(self, title: str) -> list[psutil.Process]:
        """Find its processes, those of its jobs among them, whose command line holds ``title``."""
        found = []
        for process in psutil.Process(self._require().pid).children(recursive=True):
            with suppress(psutil.Error):
                if title in " ".join(process.cmdline()):
                    found.append(process)
        return found

    def kill(self) -> None:
        """Kill it and all that it started, as where its machine loses power."""
        process = self._require()
        for each in (psutil.Process(process.pid), *self.processes("")):
            with suppress(psutil.NoSuchProcess):
                each.kill()
        self.stop()

    def stop(self) -> None:
        """End it, and remove its files."""
        process = self._require()
        process.terminate()
        process.wait()
        shutil.rmtree(self._folder, ignore_errors=True)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _require(self) -> subprocess.Popen[bytes]:
        assert self._process is not None, "not started"
        return self._process


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
