"""A shell beside a running stack that has only the variables it printed."""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import yaml

from tests.support.datasets import write_dataset
from tests.support.project import CHECKOUT
from tests.support.serving import BIN

NUM_CASES = 6


class Client:
    """Another shell, which has only the printed variables."""

    def __init__(self, folder: Path, variables: dict[str, str], stack_pid: int) -> None:
        self.folder, self.variables, self.stack_pid = folder, variables, stack_pid
        self.raw = write_dataset(folder / "raw", *(f"case{number}" for number in range(NUM_CASES)))
        self.config = folder / "boxes.yaml"
        self.config.write_text(yaml.safe_dump(self.values()))

    def values(self, **train: Any) -> dict[str, Any]:
        """A pipeline of some seconds on boxes in noise."""
        loop = {"patch_size": [12, 12, 12], "global_batch_size": 4, "num_steps": 60, "log_every_steps": 10}
        return {
            "data": {"root": str(self.raw)},
            "train": {**loop, "checkpoint_every_steps": 20, "model": {"channels": [4, 8]}, **train},
            "evaluate": {"tta": False},
            "registry": {"name": "boxes", "export": []},
        }

    def environment(self, *without: str) -> dict[str, str]:
        outside = ("PREFECT", "MLFLOW", "RAY", "UNETFLOW", "AWS")
        kept = {name: value for name, value in os.environ.items() if not name.startswith(outside)}
        ours = {"HOME": str(self.folder / "home"), "UNETFLOW_CACHE": str(self.folder / "cache")}
        return kept | ours | {name: value for name, value in self.variables.items() if name not in without}

    def start(self, *arguments: str, without: tuple[str, ...] = ()) -> subprocess.Popen[str]:
        command = [str(BIN / "unetflow"), *arguments]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        return subprocess.Popen(
            command,
            env=self.environment(*without),
            cwd=self.folder,
            text=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background jobs ignore it
            **pipes,
        )

    def run(self, *arguments: str, code: int = 0, without: tuple[str, ...] = ()) -> tuple[str, str]:
        """(stdout, stderr) of a command that has to end with ``code``."""
        process = self.start(*arguments, without=without)
        out, err = process.communicate(timeout=400)
        assert process.returncode == code, f"{arguments}: {process.returncode}\n{out}\n{err[-4000:]}"
        return out, err

    def get(self, url: str, login: str) -> Any:
        headers = {"Authorization": f"Basic {base64.b64encode(login.encode()).decode()}"}
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=30) as answer:
            return json.load(answer)

    def prefect(self, path: str, body: dict[str, Any]) -> Any:
        login = base64.b64encode(self.variables["PREFECT_API_AUTH_STRING"].encode()).decode()
        headers = {"Authorization": f"Basic {login}", "Content-Type": "application/json"}
        url = f"{self.variables['PREFECT_API_URL']}{path}"
        request = urllib.request.Request(url, json.dumps(body).encode(), headers)
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)

    def deploy(self, interval: int) -> None:
        """What infra/prefect.yaml deploys nightly, with this test's data and every ``interval`` seconds."""
        described = yaml.safe_load((CHECKOUT / "infra" / "prefect.yaml").read_text())
        described.pop("definitions")
        (nightly,) = [each for each in described["deployments"] if each["name"] == "nightly"]
        nightly["schedules"] = [{"interval": interval, "slug": "often"}]
        nightly["parameters"] = {"config": self.values(init="champion")}
        path = self.folder / "prefect.yaml"
        path.write_text(yaml.safe_dump(described | {"deployments": [nightly]}))
        command = [str(BIN / "prefect"), "--no-prompt", "deploy", "--all", "--prefect-file", str(path)]
        done = subprocess.run(command, env=self.environment(), cwd=self.folder, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr


def read_variables(path: Path) -> dict[str, str]:
    """What ``source stack.env`` sets."""
    words = ["bash", "-c", 'set -a; env -i bash -c "set -a; source $0; env -0"', str(path)]
    text = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    pairs = (pair.split("=", 1) for pair in text.split("\0") if pair)
    return {name: value for name, value in pairs if name not in ("PWD", "SHLVL", "_", "OLDPWD")}
