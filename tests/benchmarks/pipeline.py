"""The pipeline's wall time against the sum of what its stages computed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path


def run(folder: Path) -> None:
    """Run the demo through the console script in an empty home, and once more with another seed; print both."""
    _run_demo(folder, "in an empty home", "train.seed=0")
    _run_demo(folder, "again, with another seed", "train.seed=1")


def _run_demo(home: Path, what: str, override: str) -> None:
    environment = os.environ | {"HOME": str(home), "XDG_CACHE_HOME": "", "XDG_STATE_HOME": ""}
    command = [str(Path(sys.executable).with_name("unetflow")), "demo", "segmentation", "--set", override, "--json"]
    started = time.perf_counter()
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    wall = time.perf_counter() - started
    stages = [stage for stage in json.loads(done.stdout)["stages"] if not stage["cached"]]
    computed = sum(stage["seconds"] for stage in stages)
    print(f"\ndemo pipeline {what}: {wall:.1f} s wall, {computed:.1f} s in stages", flush=True)
    for stage in stages:
        print(f"  {stage['name']:<42}{stage['seconds']:>12,.1f} s")
    print(f"  over the stages: {100 * (wall / computed - 1):.0f} %   goal <= 15 %", flush=True)
