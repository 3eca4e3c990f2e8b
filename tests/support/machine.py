"""The servers that struck runs use: an object store that can refuse, MLflow and Prefect, which can be killed."""

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


class Server:
    """A server on loopback that can be killed and started again; what it stored stays."""

    health = "health"
    """Path that answers once it is ready."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.url = f"http://127.0.0.1:{free_port()}"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def port(self) -> str:
        """Port of its address."""
        return self.url.rpartition(":")[2]

    def words(self) -> list[str]:
        """Return the command that starts it."""
        raise NotImplementedError

    def start(self) -> None:
        """Start it, and wait until it answers."""
        log = self.folder / f"{type(self).__name__}.log"
        with log.open("ab") as stream:
            self._process = subprocess.Popen(
                self.words(),
                env=without_servers() | {"PATH": f"{BIN}:{os.environ['PATH']}", "PREFECT_HOME": str(self.folder)},
                cwd=self.folder,
                stdout=stream,
                stderr=stream,
                start_new_session=True,
            )
        wait_for(lambda: answers(f"{self.url}/{self.health}"), log.read_text, 240, alive=self._process)

    def kill(self) -> None:
        """Kill it and its workers."""
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None


class MlflowServer(Server):
    """MLflow on SQLite."""

    def words(self) -> list[str]:
        """Return the command of MLflow's server, with one worker."""
        words = [str(BIN / "mlflow"), "server", "--port", self.port, "--workers", "1"]
        words += ["--backend-store-uri", f"sqlite:///{self.folder}/mlflow.db"]
        return [*words, "--artifacts-destination", str(self.folder / "artifacts")]


class PrefectServer(Server):
    """Prefect on SQLite."""

    health = "api/health"

    @property
    def api(self) -> str:
        """Value of ``PREFECT_API_URL``."""
        return f"{self.url}/api"

    def words(self) -> list[str]:
        """Return the command of Prefect's server."""
        return [str(BIN / "prefect"), "server", "start", "--host", "127.0.0.1", "--port", self.port, "--no-ui"]


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
