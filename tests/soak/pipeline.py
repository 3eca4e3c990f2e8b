"""One pipeline under faults: the same command again and again, until it is registered."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from random import Random
from typing import Any

from tests.soak.faults import FAULTS, Fault
from tests.support.faults import StruckProject, StruckRun, struck_project
from tests.support.machine import Machine
from tests.support.object_store import BUCKET

STAGES = ("shard", "train", "evaluate", "register")
MAX_QUIET_STARTS = 4
"""Starts of the command, after the last fault, within which it must come to its end."""
MAX_PAUSE_SECONDS = 3.0
"""Longest time between two faults."""
MAX_START_SECONDS = 120.0
"""Longest time from a start of the command to its first steps, if it comes to training at all."""
CONFIG = """
registry: {name: soak, export: []}
data: {layout: phantoms, num_phantoms: 8, split_seed: 1}
train:
  patch_size: [24, 24, 24]
  global_batch_size: 2
  num_steps: 300
  precision: fp32
  validate_cases: 0
  checkpoint_every_steps: 10
  log_every_steps: 5
  model: {channels: [4, 8]}
evaluate: {tta: false}
compute: {num_workers: 2, max_failures: 1000, retry_delay_seconds: 1}
"""


class SoakedPipeline:
    """A pipeline in a home of its own, with servers or with the files of this machine alone."""

    def __init__(self, project: StruckProject, machine: Machine, *, uses_servers: bool, command: str) -> None:
        self.project, self.machine = project, machine
        self.uses_servers, self.command = uses_servers, command
        self.runs: list[StruckRun] = []
        if uses_servers:
            project.root = f"s3://{BUCKET}/{project.home.name}"
            project.extra = {"MLFLOW_TRACKING_URI": machine.mlflow.url}

    def start(self) -> None:
        """Start the command, whether it runs already or not."""
        name = self.project.home.name  # pipelines share the MLflow server
        overrides = ("--set", f"registry.name={name}", "--set", f"registry.experiment={name}")
        self.runs.append(self.project.start(self.command, *overrides))

    def wait_for_training(self) -> None:
        """Wait until the newest run has reported steps, or has ended, for ``MAX_START_SECONDS`` at most."""
        run, until = self.runs[-1], time.monotonic() + MAX_START_SECONDS
        while run.is_running() and " steps, train loss" not in run.said and time.monotonic() < until:
            time.sleep(0.2)

    def running(self) -> list[StruckRun]:
        """Return the runs whose process lives; notes what they have started."""
        found = [run for run in self.runs if run.is_running()]
        for run in found:
            run.remember()
        return found

    def strike(self, fault: Fault, random: Random) -> str | None:
        """Strike it, and return what its runs said then; None where there was nothing to strike."""
        before = {id(run): len(run.said) for run in self.runs}
        if not fault.strike(self, random):
            return None
        self._pause(random.uniform(0.0, MAX_PAUSE_SECONDS))
        return "; ".join(_outcome(run, before.get(id(run), 0)) for run in self.runs if id(run) in before)

    def _pause(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while time.monotonic() < until and self.running():
            time.sleep(0.2)

    def finish(self) -> None:
        """Run the command to its end, undisturbed. Raises AssertionError where it does not come to it."""
        self.machine.mend()
        codes = [run.finish() for run in self.runs]
        for _ in range(MAX_QUIET_STARTS):
            if codes and codes[-1] == 0:
                break
            self.start()
            codes.append(self.runs[-1].finish())
        assert codes[-1] == 0, f"lost: exit codes {codes}\n{self.runs[-1].said[-4000:]}"

    def audit(self, reference: dict[str, Any]) -> list[str]:
        """Assert that nothing is lost and nothing exists twice; return the processes that are left."""
        assert self.project.audit(reference, STAGES) == "bitwise", "other weights than those of the undisturbed run"
        return [name for run in self.runs for name in run.left_processes()]


def _outcome(run: StruckRun, position: int) -> str:
    """Describe a run since a position in what it said."""
    new = [line for line in run.said[position:].splitlines() if line.strip()]
    said = next((line for line in reversed(new) if "resumed at" in line or line.startswith("unetflow:")), "")
    code = run.process.poll()
    state = "goes on" if code is None else f"exit code {code}"
    return f"{state}{': ' + said[:150] if said else ''}"


@contextmanager
def soaked_pipeline(machine: Machine, random: Random, *, may_use_servers: bool = True) -> Iterator[SoakedPipeline]:
    """Yield a pipeline in a new home: half of them with servers, half of them through Prefect."""
    uses_servers, command = random.random() < 0.5 and may_use_servers, random.choice(["run", "register"])
    with struck_project(CONFIG) as project:
        pipeline = SoakedPipeline(project, machine, uses_servers=uses_servers, command=command)
        try:
            yield pipeline
        finally:
            for run in pipeline.running():
                run.process.kill()
                run.left_processes()


def draw_fault(random: Random) -> Fault:
    """Draw a kind of fault."""
    return random.choice(FAULTS)
