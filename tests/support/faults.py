"""Faults: a run of the command line that is struck, what its storage holds afterwards, and a table of both."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from safetensors.numpy import load

from data_pipelines import storage
from tests.support.project import Project
from tests.support.serving import BIN, wait_for

PATIENCE_SECONDS = 600.0
"""Time for anything to happen: a run beside others on two cores is slow."""
ENDS_WITHIN_SECONDS = 75.0
"""Time for what a killed process started to end: without ``LOST_HEAD_SECONDS``, Ray's agents stay for a minute."""
WORKER, RAYLET, GCS = "ray::RayTrainWorker", "raylet/raylet", "gcs/gcs_server"
CHECKPOINT_EVERY, LOG_EVERY = 20, 5
STRUCK = f"""
registry: {{name: struck, export: []}}
data: {{layout: phantoms, num_phantoms: 8, split_seed: 1}}
train:
  patch_size: [24, 24, 24]
  global_batch_size: 2
  num_steps: 160
  precision: fp32
  validate_cases: 0
  checkpoint_every_steps: {CHECKPOINT_EVERY}
  keep_checkpoints: 4
  log_every_steps: {LOG_EVERY}
  model: {{channels: [4, 8]}}
evaluate: {{tta: false}}
compute: {{num_workers: 2, retry_delay_seconds: 1}}
"""
"""Configuration of the runs that the tables show, in YAML."""
STAGES = ("shard", "train", "evaluate", "register")
RESUMED = "resumed at step"


@dataclass(frozen=True, slots=True, kw_only=True)
class FaultRow:
    """One row of the table; None: does not apply."""

    broken: str
    when: str
    detected: float | None = None
    """Seconds from the fault to the first line about it, or to the end of the process."""
    again: float | None = None
    """Seconds from the fault, or from the next start of the command, to the first step that is reported."""
    repeated: int | None = None
    """Steps that were trained twice."""
    weights: str
    """``bitwise``, or the largest difference of a weight from those of the undisturbed run."""
    left_overs: str = "none"
    """Processes and folders that nobody needs any more."""
    seen: str
    """Line that the user sees."""

    def cells(self) -> list[str]:
        """Return the row's texts, in the order of ``COLUMNS``."""
        seconds = [f"{value:.0f}" if value is not None else "-" for value in (self.detected, self.again)]
        repeated = str(self.repeated) if self.repeated is not None else "-"
        return [self.broken, self.when, *seconds, repeated, self.weights, self.left_overs, self.seen]


COLUMNS = ["broken", "when", "detected, s", "training again, s", "steps repeated", "weights", "left-overs", "user saw"]


def table_text(rows: list[FaultRow]) -> str:
    """Write the rows as a table in Markdown."""
    lines = [COLUMNS, ["---"] * len(COLUMNS), *(row.cells() for row in rows)]
    return "\n".join(
        "| " + " | ".join(" ".join(cell.split()).replace("|", "/") for cell in line) + " |" for line in lines
    )


def compare_weights(ours: dict[str, Any], theirs: dict[str, Any]) -> str:
    """Return ``bitwise``, or the largest difference of a weight."""
    assert ours.keys() == theirs.keys()
    if all(np.array_equal(ours[name], theirs[name]) for name in ours):
        return "bitwise"
    return f"{max(float(abs(ours[name].astype(float) - theirs[name]).max()) for name in ours):.1e}"


def read_starts(temporary: Path) -> list[list[int]]:
    """Read the steps that runs with this temporary folder reported, a list for each time that workers were started."""
    starts: list[list[int]] = [[]]
    for path in temporary.glob("unetflow-*/train-*/reports.jsonl"):
        for line in path.read_text().split("\n")[:-1]:
            row = json.loads(line)
            if "failed_workers" in row:
                starts.append([])
            elif not row.get("checkpoint") and "train/loss" in row:
                starts[-1].append(int(row["step"]))
    return starts


@dataclass(slots=True)
class StruckRun:
    """A run of the command line, and every process that it started, as long as it was asked for them."""

    process: subprocess.Popen[bytes]
    log: Path
    family: set[psutil.Process] = field(default_factory=set)

    @property
    def said(self) -> str:
        """What the user saw so far."""
        return self.log.read_text(errors="replace")

    def last_line(self, part: str) -> str:
        """Return the last line that holds ``part``, without the time of day; empty where there is none."""
        found = [line for line in self.said.splitlines() if part in line]
        return found[-1].split("  ", 1)[-1].strip() if found else ""

    def is_running(self) -> bool:
        """Tell whether its own process lives."""
        return self.process.poll() is None

    def remember(self) -> None:
        """Note the processes that it has started by now."""
        with suppress(psutil.Error):
            self.family |= set(psutil.Process(self.process.pid).children(recursive=True))

    def find(self, title: str) -> list[psutil.Process]:
        """Find its processes whose command line holds ``title``."""
        self.remember()
        return [process for process in self.family if title in command_line(process)]

    def strike(self, number: signal.Signals, title: str = "") -> None:
        """Send a signal to its process, or to the first one with a title."""
        self.remember()
        target = self.find(title)[0] if title else psutil.Process(self.process.pid)
        target.send_signal(number)

    def signal_all(self, number: signal.Signals) -> None:
        """Send a signal to its process and everything that it started, as where a machine sleeps."""
        self.remember()
        for process in {psutil.Process(self.process.pid), *self.family}:
            with suppress(psutil.Error):
                process.send_signal(number)

    def wait_until(self, condition: Callable[[], bool]) -> None:
        """Wait while it runs."""
        wait_for(condition, lambda: self.said[-4000:], PATIENCE_SECONDS, alive=self.process)

    def wait_until_said(self, *texts: str) -> float:
        """Wait until it has said one of the texts, also after its end; return the seconds that it took."""
        began = time.monotonic()
        wait_for(lambda: any(text in self.said for text in texts), lambda: self.said[-4000:], PATIENCE_SECONDS)
        return time.monotonic() - began

    def finish(self) -> int:
        """Wait for its end; return its exit code."""
        return self.process.wait(timeout=PATIENCE_SECONDS)

    def left_processes(self) -> list[str]:
        """Return the command lines of the processes that outlive it, which are ended."""
        alive = psutil.wait_procs(self.family, timeout=ENDS_WITHIN_SECONDS)[1]
        names = [command_line(process)[:80] for process in alive]
        for process in alive:
            with suppress(psutil.Error):
                process.kill()
        return names


class StruckProject(Project):
    """A home in which one pipeline is run, struck and run again."""

    def __init__(self, home: Path, config: str) -> None:
        super().__init__(home, config)
        self.root = str(self.storage)
        self.temporary = home / "tmp"
        self.temporary.mkdir()
        self.extra: dict[str, str] = {}
        self.num_starts = 0

    @property
    def variables(self) -> dict[str, str]:
        """Variables that lead into this home."""
        own = {"UNETFLOW_STORAGE": self.root, "TMPDIR": str(self.temporary), "RAY_worker_niceness": "0"}
        return super().variables | own | self.extra

    def start(self, *words: str, **variables: str) -> StruckRun:
        """Start the command on the project's configuration."""
        self.num_starts += 1
        log = self.home / f"log-{self.num_starts}"
        command = [str(BIN / "unetflow"), words[0], str(self.config), *words[1:]]
        with log.open("wb") as stream:
            process = subprocess.Popen(
                command,
                env=self.environment | variables,
                cwd=self.home,
                stdout=stream,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        return StruckRun(process, log)

    def resume(self, run: StruckRun, command: str = "register") -> str:
        """Start the command again unless ``run`` came to its end; return the line of the last resume."""
        if run.process.returncode != 0:
            run = self.start(command)
            assert run.finish() == 0, run.said
        return run.last_line(RESUMED)

    def records(self, stage: str) -> list[dict[str, Any]]:
        """Read the records of a stage, one per key."""
        stages = storage.join(self.root, stage)
        uris = [storage.join(stages, key, "record.json") for key in storage.list_names(stages)]
        return [json.loads(storage.read_bytes(uri)) for uri in uris if storage.size(uri) is not None]

    def checkpoints(self) -> list[Path]:
        """Return the complete checkpoints on local storage, the newest last."""
        found = Path(self.root).glob("train/*/*/step-*/checkpoint.json")
        return sorted((path.parent for path in found), key=lambda folder: folder.name)

    def reached(self) -> int:
        """Return the highest step that a run of this home reported."""
        return max((step for start in read_starts(self.temporary) for step in start), default=0)

    def weights(self) -> dict[str, Any]:
        """Read the trained weights."""
        (record,) = self.records("train")
        uri = record["outputs"]["weights"]["uri"]
        absolute = uri if uri.startswith("/") or "://" in uri else storage.join(record["uri"], uri)
        return load(storage.read_bytes(absolute))

    def audit(self, reference: dict[str, Any], stages: tuple[str, ...]) -> str:
        """Assert that nothing was lost and nothing was made twice; return how the weights compare."""
        for stage in stages:
            assert len(self.records(stage)) == 1, f"{stage}: {len(self.records(stage))} records"
        (registered,) = self.records("register")
        versions = self._versions(registered["figures"]["model_name"])
        assert versions == [(str(registered["figures"]["model_version"]), "champion")], versions
        half = [path for path in Path(self.root).glob("*/*/.*") if path.name != ".lock"]
        assert half == [], f"half-published: {half}"
        return compare_weights(self.weights(), reference)

    def _versions(self, name: str) -> list[tuple[str, str]]:
        """Ask the registry for versions and their aliases, in a process of its own: the tests' has another registry."""
        done = subprocess.run(
            [str(BIN / "unetflow"), "models", name, "--json"],
            env=self.environment,
            cwd=self.home,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        return [(str(each["version"]), ",".join(each["aliases"])) for each in json.loads(done.stdout)]


@contextmanager
def struck_project(config: str) -> Iterator[StruckProject]:
    """Yield a project in a new home with a short path, below which Ray's sockets lie."""
    home = Path(tempfile.mkdtemp(prefix="ufx-"))
    try:
        yield StruckProject(home, config)
    finally:
        shutil.rmtree(home, ignore_errors=True)


def repeated_steps(line: str) -> int:
    """Read how many steps a resume repeated from the line about it."""
    words = line.split()
    return int(words[words.index("repeated") - 2])


def command_line(process: psutil.Process) -> str:
    """Return the command line of a process; empty where it ended."""
    try:
        return " ".join(process.cmdline()).strip()
    except psutil.Error:
        return ""


def truncate(path: Path) -> None:
    """Leave the first half of a file."""
    os.truncate(path, path.stat().st_size // 2)


def flip(path: Path) -> None:
    """Change one bit in the middle of a file."""
    with path.open("r+b") as stream:
        stream.seek(path.stat().st_size // 2)
        byte = stream.read(1)[0]
        stream.seek(-1, os.SEEK_CUR)
        stream.write(bytes([byte ^ 1]))
