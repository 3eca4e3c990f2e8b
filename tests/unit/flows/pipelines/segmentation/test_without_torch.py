"""The script of the documentation segments as the model does, where torch, MLflow and this project are missing."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from data_pipelines.volumes.classes import Labels, Region
from data_pipelines.volumes.specs import IntensitySpec, PreprocessSpec
from flows.pipelines.segmentation.bundle import Bundle
from flows.pipelines.segmentation.postprocess import Postprocessing
from flows.pipelines.segmentation.segmenter import Segmenter
from flows.registry.bundle import write_bundle
from tests.support.volumes import numbered
from unet_models.formats.export import export_networks
from unet_models.formats.trace import trace_unet
from unet_models.networks.build import build_network
from unet_models.specs.networks import UNetSpec
from unet_models.specs.segmentation import PredictSpec

SCRIPT = Path(__file__).parents[5] / "docs" / "segment_without_torch.py"
ALONE = """
import runpy, sys
for name in ("torch", "mlflow", "flows", "unet_models", "data_pipelines"):
    sys.modules[name] = None
script, sys.argv = sys.argv[1], sys.argv[1:]
runpy.run_path(script, run_name="__main__")
"""
CLASSES = numbered("background", "organ", "vessel")
VALUES = Labels(names=CLASSES.names, values=((0,), (40_000, 1), (-7,)))
REGIONS = CLASSES.model_copy(
    update={
        "regions": (
            Region(name="all", classes=(1, 2), written=1),
            Region(name="vessel", classes=(2,), written=2),
            Region(name="organ", classes=(1,), written=1),
        )
    }
)
CT = (IntensitySpec(low=20, high=90, mean=50, std=12), IntensitySpec(low=0, high=80, mean=40, std=9))


SPEC, NUM_OUTPUTS = UNetSpec(channels=(4, 6, 8)), 3


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights and ONNX file of one network, for every model here."""
    folder = tmp_path_factory.mktemp("exported")
    torch.manual_seed(0)
    network = build_network(SPEC, 2, NUM_OUTPUTS).eval()
    save_file(network.state_dict(), folder / "model.safetensors")
    export_networks(folder, {"unet": lambda: trace_unet(network, 2, NUM_OUTPUTS)}, ["onnx"])
    return folder


@pytest.fixture
def folder(exported: Path, tmp_path: Path) -> Path:
    """A model's folder without its description, and an image."""
    shutil.copytree(exported, tmp_path, dirs_exist_ok=True)
    write_image(tmp_path / "image.nii.gz")
    return tmp_path


def describe(folder: Path, **changes: Any) -> None:
    settings: dict[str, Any] = {
        "model": SPEC,
        "labels": CLASSES,
        "channels": ("A", "B"),
        "patch_size": (12, 16, 8),
        "preprocess": PreprocessSpec(),
        "spacing": (1.0, 1.2, 1.5),
        "mirror_axes": (0, 1),
        "predict": PredictSpec(),
    }
    write_bundle(folder, Bundle(**{**settings, **changes}))


def write_image(path: Path) -> None:
    """Noise in a frame of zeros, with axes stored as y, z, x, two of them reversed."""
    rng = np.random.default_rng(0)
    image = np.zeros((20, 9, 26, 2), np.float32)
    image[3:-2, 1:-1, 2:-4] = rng.normal(50, 20, (15, 7, 20, 2))
    affine = np.array([[0, 0, -0.8, 9], [1.1, 0, 0, 5], [0, -2.0, 0, 1], [0, 0, 0, 1]])
    nibabel.save(nibabel.Nifti1Image(image, affine), path)


def segment_alone(folder: Path) -> subprocess.CompletedProcess[str]:
    files = (str(folder / name) for name in ("image.nii.gz", "labels.nii.gz"))
    words = [sys.executable, "-c", ALONE, str(SCRIPT), str(folder), *files]
    return subprocess.run(words, capture_output=True, text=True)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"labels": VALUES, "preprocess": PreprocessSpec(foreground_crop=True), "predict": PredictSpec(tta=False)},
        {
            "labels": REGIONS,
            "preprocess": PreprocessSpec(
                foreground_crop="nonzero", normalise=("intensities", "zscore"), intensities=CT, masked=(False, True)
            ),
        },
        {"preprocess": PreprocessSpec(normalise="window", window=(20, 90), image_interpolation="spline")},
        {"spacing": (1.0, 1.0, 6.0), "predict": PredictSpec(overlap=0.2)},
        {
            "predict": PredictSpec(weighting="nnunet", tta=False),
            "postprocessing": Postprocessing(largest_component=(1,), smallest_component={2: 40.0}, fill_holes=(1, 2)),
        },
    ],
    ids=["resampled", "values", "regions", "window", "thick slices", "postprocessed"],
)
def test_label_maps_are_those_of_the_model(folder: Path, changes: dict[str, Any]) -> None:
    describe(folder, **changes)
    model, image = Segmenter.from_folder(folder, device="cpu"), folder / "image.nii.gz"
    done = segment_alone(folder)
    assert done.returncode == 0, done.stderr
    written = nibabel.load(folder / "labels.nii.gz")
    theirs, ours = np.asarray(written.dataobj), model.label_files([str(image)])
    assert len(np.unique(ours)) > 1
    assert (theirs == ours).mean() > 0.9999, f"{(theirs != ours).sum()} voxels differ"
    assert theirs.dtype == ours.dtype
    np.testing.assert_allclose(written.affine, nibabel.load(image).affine)


def test_lengths_in_other_units_are_those_of_the_model(folder: Path) -> None:
    describe(folder)
    image = nibabel.load(folder / "image.nii.gz")
    image = nibabel.Nifti1Image(np.asarray(image.dataobj), image.affine * [[1000], [1000], [1000], [1]])
    image.header.set_xyzt_units("micron")
    nibabel.save(image, folder / "image.nii.gz")
    assert segment_alone(folder).returncode == 0
    written = nibabel.load(folder / "labels.nii.gz")
    ours = Segmenter.from_folder(folder, device="cpu").label_files([str(folder / "image.nii.gz")])
    assert (np.asarray(written.dataobj) == ours).mean() > 0.9999
    assert written.header.get_xyzt_units() == ("micron", "unknown")


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"predict": PredictSpec(exit_confidence=0.9)}, "predict.exit_confidence"),
        ({"predict": PredictSpec(precision="bf16")}, "predict.precision"),
        ({"preprocess": PreprocessSpec(orientation="stored")}, "preprocess.axes"),
    ],
)
def test_what_the_script_does_not_know_is_refused(folder: Path, changes: dict[str, Any], name: str) -> None:
    describe(folder, **changes)
    done = segment_alone(folder)
    assert done.returncode == 1
    assert f"this script does not know the model's {name}" in done.stderr
    assert not (folder / "labels.nii.gz").exists()
