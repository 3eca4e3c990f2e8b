"""nnU-Net's own integration data sets, from files to registered models.

``python -m tests.benchmarks.nnunet_datasets DATA FOLDER --within 2m``, with DATA the Task04_Hippocampus of the Medical
Decathlon; nnU-Net, whose scripts make the data sets of it, must be installed (``make test-peers``): hippocampus with an
ignore label and regions (996), with regions (997), with an ignore label (998), and as it is (999). What was made and
trained stays in FOLDER.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import time
from pathlib import Path
from typing import Any

from tests.benchmarks.nnunet_training import BIN, VARIABLES, make_dataset

NUMBERS = (996, 997, 998, 999)


def run(data: Path, folder: Path, within: str) -> None:
    """Print one line per data set: minutes, what was registered, and the Dice of each class or region."""
    for name, place in VARIABLES.items():
        (folder / place).mkdir(parents=True, exist_ok=True)
        os.environ[name] = str(folder / place)
    for number in NUMBERS:
        raw = make_dataset(number, data, folder / "raw")
        started = time.perf_counter()
        found = _run_pipeline(raw, data / "splits_final.json", folder / "storage", within)
        minutes = (time.perf_counter() - started) / 60
        scores = {name: value for name, value in found["metrics"].items() if name.partition("/")[0] == "dice"}
        words = ", ".join(f"{name} {value:.3f}" for name, value in scores.items())
        print(f"{raw.name}: {minutes:.1f} min, {found['model_uri']} ({found['alias']}); {words}", flush=True)


def _run_pipeline(raw: Path, splits: Path, storage: Path, within: str) -> dict[str, Any]:
    command = [BIN / "unetflow", "run", raw, "--within", within, "--set", f"data.splits={splits}", "--json"]
    environment = os.environ | {"UNETFLOW_STORAGE": str(storage)}
    printed = subprocess.run(command, check=True, env=environment, stdout=subprocess.PIPE, text=True).stdout
    found: dict[str, Any] = json.loads(printed.strip().splitlines()[-1])
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.nnunet_datasets", description=__doc__)
    parser.add_argument("data", type=Path, metavar="DATA")
    parser.add_argument("folder", type=Path, metavar="FOLDER")
    parser.add_argument("--within", default="2m", help="Training time of each, such as 2m.")
    given = parser.parse_args()
    run(given.data.absolute(), given.folder.absolute(), given.within)
