"""Prediction of a folder beside nnU-Net's own, by the model that nnU-Net trained.

``python -m tests.benchmarks.nnunet RESULTS IMAGES``, with results as ``unetflow import nnunet`` reads them and
a folder of images; nnU-Net must be installed (``make test-peers``).
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import nibabel
import numpy as np

BIN = Path(sys.executable).parent


def compare(results: Path, images: Path, folder: Path, rounds: int, precisions: list[str]) -> None:
    """Time the commands in turns, each from its start to its end; print medians, their ratio and the equal labels."""
    variables = dict.fromkeys(("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"), str(folder))
    environment = os.environ | variables | {"UNETFLOW_STORAGE": str(folder / "storage")}
    theirs = ["nnUNetv2_predict_from_modelfolder", "-i", str(images), "-m", str(results), "-f", "0", "-device", "cpu"]
    commands = {"nnU-Net": [*theirs, "-o", str(folder / "nnU-Net")]}
    for precision in precisions:
        words = ["import", "nnunet", str(results), "--fold", "0", "--name", precision, "--precision", precision]
        _run(["unetflow", *words], environment)
        output = str(folder / precision)
        commands[precision] = ["unetflow", "predict", f"models:/{precision}/1", str(images), output]
    seconds: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(rounds):
        for name, command in commands.items():
            shutil.rmtree(folder / name, ignore_errors=True)
            started = time.perf_counter()
            _run(command, environment)
            seconds[name].append(time.perf_counter() - started)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    print(f"\nprediction of {len(list(images.iterdir()))} volumes by nnU-Net's model, {rounds} rounds")
    for name, median in medians.items():
        same = _same_labels(folder / name, folder / "nnU-Net")
        print(
            f"  {name:<10}{median:>8.1f} s   {median / medians['nnU-Net']:.2f} of nnU-Net   {same:.4%} of labels equal"
        )


def _run(command: list[str], environment: dict[str, str]) -> None:
    subprocess.run([BIN / command[0], *command[1:]], check=True, env=environment, stdout=subprocess.DEVNULL)


def _same_labels(ours: Path, theirs: Path) -> float:
    """Return the share of voxels of all label maps that are equal."""
    same = [
        np.asarray(nibabel.load(path).dataobj) == np.asarray(nibabel.load(ours / path.name).dataobj)
        for path in sorted(theirs.glob("*.nii.gz"))
    ]
    return float(sum(each.sum() for each in same) / sum(each.size for each in same))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.nnunet", description=__doc__)
    parser.add_argument("results", type=Path, metavar="RESULTS")
    parser.add_argument("images", type=Path, metavar="IMAGES")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--precisions", nargs="+", default=["fp32", "bf16"])
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-") as temporary:
        compare(given.results, given.images, Path(temporary), given.rounds, given.precisions)
