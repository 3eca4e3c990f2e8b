"""Memory of the prediction of one large image, and what a limit on it changes."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import nibabel
import numpy as np
import torch
from safetensors.torch import save_file

from data_pipelines.volumes.classes import Labels
from data_pipelines.volumes.specs import PreprocessSpec
from flows.pipelines.segmentation.bundle import Bundle
from flows.pipelines.segmentation.maps import MapName
from flows.pipelines.segmentation.segmenter import Segmenter
from flows.registry.bundle import WEIGHTS, write_bundle
from unet_models.networks.build import build_network
from unet_models.specs.networks import UNetSpec
from unet_models.specs.segmentation import PredictSpec

NUM_CLASSES = 32
UNLIMITED_GB = 1000.0
PATCH = 128
MAPS: tuple[MapName, ...] = ("probabilities", "uncertainty")


def run(folder: Path) -> None:
    """Print peak memory and labels: 256 voxels per axis within and without a limit, and with maps; 512 within 4 GB."""
    print(f"\nprediction of {NUM_CLASSES} classes, windows of {PATCH} voxels")
    for size, cases in (
        (256, ((UNLIMITED_GB, ()), (1.0, ()), (UNLIMITED_GB, MAPS))),
        (512, ((4.0, ()),)),
    ):
        write_case(folder, size)
        first = None
        for limit, maps in cases:
            words = [sys.executable, "-m", "tests.benchmarks.inference", str(folder), str(limit), *maps]
            done = subprocess.run(words, check=True, capture_output=True, text=True)
            peak, seconds = json.loads(done.stdout.splitlines()[-1])
            labels = np.asarray(nibabel.load(folder / "labels.nii").dataobj)
            first = labels if first is None else first
            name = ("no limit" if limit == UNLIMITED_GB else f"limit {limit:g} GB") + (", maps" if maps else "")
            same = (labels == first).mean()
            print(f"  {size}^3, {name:<15}{peak:>8.2f} GB{seconds:>8.1f} s   {same:.4%} of the labels the same")


def write_case(folder: Path, size: int) -> None:
    """Write an image of blobs, ``size`` voxels per axis, and a narrow network for images of 1.25 times its spacing."""
    model = UNetSpec(channels=(4, 8))
    bundle = Bundle(
        model=model,
        labels=Labels(names=tuple(map(str, range(NUM_CLASSES))), values=tuple((n,) for n in range(NUM_CLASSES))),
        channels=("CT",),
        patch_size=(PATCH,) * 3,
        preprocess=PreprocessSpec(spacing=(0.8,) * 3),
        spacing=(0.8,) * 3,
        mirror_axes=(),
        predict=PredictSpec(overlap=0),
    )
    write_bundle(folder, bundle)
    torch.manual_seed(0)
    save_file(build_network(model, 1, NUM_CLASSES).state_dict(), folder / WEIGHTS)
    stored = round(size * 0.8)
    coarse = torch.randn(1, 1, 16, 16, 16)
    image = torch.nn.functional.interpolate(coarse, (stored,) * 3, mode="trilinear")[0, 0].mul(500).short().numpy()
    nibabel.save(nibabel.Nifti1Image(image, np.eye(4)), folder / "image.nii")


def predict(folder: Path, limit_gb: float, maps: Sequence[MapName]) -> tuple[float, float]:
    """Predict the image, and maps, within a limit; return the peak memory of this process in GB, and seconds."""
    segmenter = Segmenter.from_folder(folder, device="cpu").within(limit_gb)
    started = time.perf_counter()
    segmenter.segment_to_file([str(folder / "image.nii")], str(folder / "labels.nii"), names=maps)
    seconds = time.perf_counter() - started
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9, seconds


if __name__ == "__main__":
    print(json.dumps(predict(Path(sys.argv[1]), float(sys.argv[2]), [name for name in MAPS if name in sys.argv[3:]])))
