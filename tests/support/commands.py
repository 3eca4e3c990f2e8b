"""The command line in this process or in one of its own, and what it leaves on the terminal."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import tempfile
from collections.abc import Mapping
from contextlib import redirect_stderr
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

from flows.cli import base
from flows.cli.main import run_command
from tests.support.serving import BIN


@dataclass(frozen=True)
class Outcome:
    """What a command leaves on the terminal."""

    code: int
    out: str
    err: str

    @property
    def record(self) -> dict[str, Any]:
        """The one JSON object that is all of stdout."""
        assert self.code == 0, self.err
        record: dict[str, Any] = json.loads(self.out)
        return record

    @property
    def message(self) -> str:
        """What a user's mistake is told with; stdout stays empty."""
        assert self.code == 2, self.err
        assert self.out == ""
        return self.err

    @property
    def problems(self) -> list[dict[str, str]]:
        """Problems of the input as listed, each with path, message, rule and remedy."""
        found: list[dict[str, str]] = []
        rule = ""
        group: list[dict[str, str]] = []
        for line in self.message.splitlines():
            if header := re.fullmatch(r"([a-z0-9-]+), \d+ files?", line):
                rule, group = header[1], []
            elif line.startswith("  -> "):
                found += [problem | {"remedy": line.removeprefix("  -> ")} for problem in group]
            elif listed := re.fullmatch(r"  (/.+?): (.+)", line):
                group.append({"rule": rule, "path": listed[1], "message": listed[2]})
        assert f"{len(found)} problem{'s' if len(found) != 1 else ''} in the input data:" in self.err
        return found

    @property
    def problem(self) -> dict[str, str]:
        """The one problem."""
        (found,) = self.problems
        return found


def run_here(*arguments: str, environment: Mapping[str, str] | None = None) -> Outcome:
    """Run the command in this process, so that Python, torch and Ray start once for all tests.

    An uncaught exception fails the test. Variables that the command sets are gone afterwards.
    """
    with tempfile.TemporaryFile() as stdout, mock.patch.dict(os.environ):
        os.environ.pop("MLFLOW_TRACKING_URI", None)  # MLflow sets it wherever a test names its server
        os.environ.pop("MLFLOW_REGISTRY_URI", None)
        os.environ.update(environment or {})
        with redirect_stderr(io.StringIO()) as stderr, mock.patch.object(base, "_result_fd", stdout.fileno()):
            code = run_command(arguments)
        stdout.seek(0)
        return Outcome(code, stdout.read().decode(), stderr.getvalue())


def without_servers() -> dict[str, str]:
    """Return this process's environment without the servers and the Ray that it uses."""
    servers = ("PREFECT_", "MLFLOW_", "RAY_A", "RAY_T")  # Ray's address, authentication and training
    return {name: value for name, value in os.environ.items() if not name.startswith(servers)}


def run_installed(*arguments: str, environment: Mapping[str, str] | None = None, folder: Path | None = None) -> Outcome:
    """Run the console script in a process and on a Ray of its own."""
    inside = without_servers() | dict(environment or {})
    done = subprocess.run([BIN / "unetflow", *arguments], env=inside, cwd=folder, capture_output=True, text=True)
    assert "Traceback" not in done.stderr, done.stderr
    return Outcome(done.returncode, done.stdout, done.stderr)
