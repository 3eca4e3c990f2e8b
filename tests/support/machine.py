"""The servers that struck runs use: an object store that can refuse, and an MLflow server that can be killed."""

from __future__ import annotations

import os
import signal
import subprocess
from contextlib import ExitStack
from pathlib import Path
from typing import Self

from tests.support.commands import without_servers
from tests.support.object_store import ObjectStore
from tests.support.serving import BIN, answers, free_port, wait_for


class MlflowServer:
    """MLflow on SQLite, on loopback."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.url = f"http://127.0.0.1:{free_port()}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, and wait until it answers."""
        words = [str(BIN / "mlflow"), "server", "--port", self.url.rpartition(":")[2], "--workers", "1"]
        words += ["--backend-store-uri", f"sqlite:///{self.folder}/mlflow.db"]
        words += ["--artifacts-destination", str(self.folder / "artifacts")]
        log = self.folder / "mlflow.log"
        with log.open("ab") as stream:
            self._process = subprocess.Popen(
                words,
                env=without_servers() | {"PATH": f"{BIN}:{os.environ['PATH']}"},
                cwd=self.folder,
                stdout=stream,
                stderr=stream,
                start_new_session=True,
            )
        wait_for(lambda: answers(f"{self.url}/health"), log.read_text, 240, alive=self._process)

    def kill(self) -> None:
        """Kill it and its workers; what it stored stays."""
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None


class Machine:
    """``with Machine(folder) as machine:`` has both servers for the length of the block."""

    def __init__(self, folder: Path) -> None:
        self.store, self.mlflow = ObjectStore(), MlflowServer(folder)
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        self._stack.enter_context(self.store)
        self._stack.callback(self.mlflow.kill)
        self.mlflow.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def mend(self) -> None:
        """Make both servers answer again."""
        self.store.is_refusing = False
        if not answers(f"{self.mlflow.url}/health"):
            self.mlflow.kill()
            self.mlflow.start()
