"""Goodput of a training, and of the same training with a worker killed every minute, side by side.

python -m tests.goodput [CONFIG.yaml] [--only undisturbed|killed] [--set a.b=value]...
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil

from flows.training.figures import TrainingFigures
from flows.training.goodput import PARTS, TimeSplit

SECONDS_BETWEEN_KILLS = 60.0
POLL_SECONDS = 0.5
DEMO = Path(__file__).parents[1] / "flows" / "configs" / "demo_segmentation.yaml"
RUNS = ("undisturbed", "killed")


def main() -> None:
    """Train once or twice into a temporary storage, and print a Markdown table of the times."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("config", nargs="?", type=Path, default=DEMO)
    parser.add_argument("--only", choices=RUNS)
    parser.add_argument("--set", action="append", default=[], dest="overrides")
    given = parser.parse_args()
    names = [given.only] if given.only else list(RUNS)
    found = {name: measure(given.config, given.overrides, kill=name == "killed") for name in names}
    print(table(found))


def table(found: dict[str, TrainingFigures]) -> str:
    """Write runs as columns, parts of the wall time as rows."""
    times = [each.times or TimeSplit() for each in found.values()]
    rows = [("goodput", [f"{each.goodput_percent:.1f} %" for each in times])]
    rows += [("wall time", [f"{each.wall:.1f} s" for each in times])]
    rows += [(title, [f"{each.parts[part]:.1f} s" for each in times]) for part, title in PARTS.items()]
    rows += [("resumes", [str(len(each.resumes)) for each in found.values()])]
    rows += [("steps repeated", [str(sum(one.repeated_steps for one in each.resumes)) for each in found.values()])]
    lines = ["| | " + " | ".join(found) + " |", "|---" * (len(found) + 1) + "|"]
    return "\n".join([*lines, *(f"| {title} | " + " | ".join(cells) + " |" for title, cells in rows)])


def measure(config: Path, overrides: Sequence[str], *, kill: bool) -> TrainingFigures:
    """Train in a process of its own; return the figures of its record."""
    with tempfile.TemporaryDirectory(prefix="uf-") as folder:
        sets = [*overrides, f"storage={folder}/s", "compute.max_failures=1000"]
        command = [
            sys.executable,
            "-m",
            "flows.cli",
            "train",
            str(config),
            "--json",
            *(f"--set={each}" for each in sets),
        ]
        environment = os.environ | {"UNETFLOW_CACHE": f"{folder}/c"}
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as run:
            if kill:
                threading.Thread(target=_kill_workers, args=(run,), daemon=True).start()
            output, _ = run.communicate()
        if run.returncode:
            raise SystemExit(f"the training ended with exit code {run.returncode}")
        stages: list[dict[str, Any]] = json.loads(output)["stages"]
        record = json.loads(Path(stages[-1]["uri"], "record.json").read_text())
    return TrainingFigures.model_validate(record["figures"])


def _kill_workers(run: subprocess.Popen[str]) -> None:
    """Kill one training worker each minute from their first start on, until the run ends."""
    choose = random.Random(0)
    next_kill = math.inf
    while run.poll() is None:
        time.sleep(POLL_SECONDS)
        if not (workers := _find_workers(run.pid)):
            continue
        next_kill = min(next_kill, time.monotonic() + SECONDS_BETWEEN_KILLS)
        if time.monotonic() >= next_kill:
            choose.choice(workers).kill()
            next_kill = time.monotonic() + SECONDS_BETWEEN_KILLS


def _find_workers(pid: int) -> list[psutil.Process]:
    try:
        children = psutil.Process(pid).children(recursive=True)
        return [each for each in children if "RayTrainWorker" in " ".join(each.cmdline())]
    except psutil.Error:  # one has ended meanwhile
        return []


if __name__ == "__main__":
    main()
