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
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

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


@contextmanager
def ray_head(log: Path) -> Iterator[dict[str, str]]:
    """Run a Ray cluster of this machine with its dashboard; yield the variables of a client that submits jobs to it."""
    token, dashboard = secrets.token_hex(32), free_port()
    variables = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token, "RAY_ADDRESS": f"http://127.0.0.1:{dashboard}"}
    folder = tempfile.mkdtemp(prefix="ufr-")  # short: Ray's sockets lie below it
    words = [str(BIN / "ray"), "start", "--head", "--block", "--port", str(free_port())]
    words += ["--dashboard-port", str(dashboard), "--dashboard-agent-listen-port", str(free_port())]
    words += [
        "--num-cpus",
        "2",
        "--object-store-memory",
        str(300 << 20),
        "--temp-dir",
        f"{folder}/r",
        "--disable-usage-stats",
    ]
    outside = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    with log.open("w") as stream:
        head = subprocess.Popen(
            words,
            env=outside | LOOPBACK_ONLY | variables | {"RAY_ADDRESS": "", "PATH": f"{BIN}:{os.environ['PATH']}"},
            stdout=stream,
            stderr=stream,
            start_new_session=True,
        )
    try:
        wait_for(lambda: answers(f"{variables['RAY_ADDRESS']}/api/version", token), log.read_text, 120, alive=head)
        yield variables
    finally:
        head.terminate()
        head.wait()
        shutil.rmtree(folder, ignore_errors=True)


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
