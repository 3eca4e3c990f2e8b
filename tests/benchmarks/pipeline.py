"""The pipeline's wall time against the sum of what its stages computed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path


def run(folder: Path) -> None:
    """Run the demo in an empty home through the console script and print both."""
    environment = os.environ | {"HOME": str(folder), "XDG_CACHE_HOME": "", "XDG_STATE_HOME": ""}
    started = time.perf_counter()
    command = [str(Path(sys.executable).with_name("unetflow")), "demo", "segmentation", "--json"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    wall = time.perf_counter() - started
    stages = json.loads(done.stdout)["stages"]
    computed = sum(stage["seconds"] for stage in stages)
    print(f"\ndemo pipeline in an empty home: {wall:.1f} s wall, {computed:.1f} s in stages", flush=True)
    for stage in stages:
        print(f"  {stage['name']:<42}{stage['seconds']:>12,.1f} s")
    print(f"  over the stages: {100 * (wall / computed - 1):.0f} %   goal <= 15 %", flush=True)
