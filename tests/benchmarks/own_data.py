"""A newcomer's first run: a folder of generated CT-like volumes, or of images with masks of 0 and 255, one command.

``python -m tests.benchmarks.own_data FOLDER --within 10m``, or for a data set of one's own with ``--data``. It runs in
an empty home in FOLDER, and prints the time of each stage, the peak of the memory of all processes, and the Dice.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import psutil

from data_pipelines.volumes.formats.images import write_picture
from data_pipelines.volumes.formats.nifti import write_nifti

SIDE, SPACING = 256, (0.8, 0.8, 2.0)
NUM_VOLUMES, NUM_IMAGES = 12, 60
IMAGE = (192, 224)


def main() -> None:
    """Write both data sets where they are not yet, and run the pipeline on each."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.own_data", description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--within", default="10m")
    parser.add_argument("--data", type=Path, help="a data set in place of the generated ones")
    parser.add_argument("--only", choices=WRITERS, help="one of the two")
    given = parser.parse_args()
    if given.data:
        run(given.folder, given.data.absolute(), given.within)
        return
    for name in [given.only] if given.only else WRITERS:
        data = given.folder.absolute() / name
        if not (data / "images").exists():
            print(f"writing {data}")
            for part in ("images", "masks"):
                (data / part).mkdir(parents=True)
            WRITERS[name](data, np.random.default_rng(0))
        run(given.folder, data, given.within)


def run(folder: Path, data: Path, within: str) -> None:
    """Run the pipeline on a data set in an empty home; print its time, memory and Dice."""
    home = folder.absolute() / f"home-{data.name}-{within}"
    home.mkdir(parents=True)
    words = [str(Path(sys.executable).parent / "unetflow"), "run", str(data), "--within", within, "--json"]
    environment = os.environ | {"HOME": str(home)}
    started = time.monotonic()
    with subprocess.Popen(words, env=environment, cwd=home, stdout=subprocess.PIPE, text=True) as process:
        peak = _Peak(process.pid)
        output = process.communicate()[0]
        bytes_used = peak.stop()
    if process.returncode:
        sys.exit(process.returncode)
    result = json.loads(output.splitlines()[-1])
    stages = ", ".join(f"{stage['name']} {stage['seconds']:.0f} s" for stage in result["stages"])
    dice = ", ".join(f"{name} {value:.4f}" for name, value in result["metrics"].items() if name.startswith("dice"))
    minutes = (time.monotonic() - started) / 60
    print(f"\n{data.name}, --within {within}, {os.cpu_count()} CPUs: {minutes:.1f} minutes ({stages})")
    print(f"  peak memory of all processes {bytes_used / 1e9:.1f} GB; {dice}\n  {result['alias']}: {result['reason']}")


class _Peak(threading.Thread):
    """Peak of the memory of a process and its children, shared pages counted once, looked at every second."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self._process, self._done, self._peak = psutil.Process(pid), threading.Event(), 0
        self.start()

    def run(self) -> None:
        while not self._done.wait(1.0):
            used = 0
            with suppress(psutil.Error):
                for process in [self._process, *self._process.children(recursive=True)]:
                    with suppress(psutil.Error):
                        used += process.memory_full_info().pss
            self._peak = max(self._peak, used)

    def stop(self) -> int:
        """Return the peak in bytes."""
        self._done.set()
        self.join()
        return self._peak


def write_volumes(data: Path, rng: np.random.Generator) -> None:
    """Write CT-like volumes: a body with organs, a liver of one intensity, one to three tumours in it."""
    shape = (SIDE,) * 3
    for index in range(NUM_VOLUMES):
        image, label = np.full(shape, -1000, np.float32), np.zeros(shape, np.uint8)
        body = _ellipsoid(shape, np.full(3, 128), np.array([110, 90, 125]))
        image[body] = 40
        for _ in range(25):
            organ = _ellipsoid(shape, rng.uniform(60, 196, 3), rng.uniform(6, 18, 3)) & body
            image[organ] = rng.uniform(-100, 20)
        middle = np.array([95, 115, 128]) + rng.uniform(-1, 1, 3) * (12, 12, 20)
        liver = _ellipsoid(shape, middle, np.array([45, 40, 40]) + rng.uniform(-6, 6, 3)) & body
        image[liver], label[liver] = 100, 1
        places = np.argwhere(liver)
        for _ in range(int(rng.integers(1, 4))):
            tumour = _ellipsoid(shape, places[rng.integers(len(places))], rng.uniform(6, 12, 3)) & liver
            image[tumour], label[tumour] = 55, 2
        image += rng.normal(0, 18, shape).astype(np.float32)
        affine = np.diag([*SPACING, 1.0])
        write_nifti(data / "images" / f"ct_{index:02}.nii.gz", image.astype(np.int16), affine)
        write_nifti(data / "masks" / f"ct_{index:02}.nii.gz", label, affine)
    (data / "classes.json").write_text('{"background": 0, "liver": 1, "tumour": 2}')


def write_images(data: Path, rng: np.random.Generator) -> None:
    """Write noisy images of bright ellipses, and masks of 0 and 255."""
    for index in range(NUM_IMAGES):
        image, mask = rng.normal(120, 12, IMAGE) + np.linspace(-30, 30, IMAGE[1]), np.zeros(IMAGE, np.uint8)
        for _ in range(int(rng.integers(3, 9))):
            cell = _ellipsoid(IMAGE, rng.uniform(0, IMAGE), rng.uniform(8, 25, 2))
            image[cell] += 45
            mask[cell] = 255
        write_picture(data / "images" / f"{index:02}.png", image.clip(0, 255).astype(np.uint8))
        write_picture(data / "masks" / f"{index:02}.png", mask)


def _ellipsoid(shape: tuple[int, ...], middle: np.ndarray, radii: np.ndarray) -> np.ndarray:
    axes = np.meshgrid(*(np.arange(n, dtype=np.float32) for n in shape), indexing="ij", sparse=True)
    distance = sum(((axis - at) / radius) ** 2 for axis, at, radius in zip(axes, middle, radii, strict=True))
    return np.asarray(distance < 1)


WRITERS: dict[str, Callable[[Path, np.random.Generator], None]] = {"volumes": write_volumes, "images": write_images}


if __name__ == "__main__":
    main()
