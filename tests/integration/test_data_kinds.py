"""The pipeline on data that is not one isotropic channel: coloured pictures, and two channels of uneven spacing."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import mlflow
import nibabel as nib
import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from tests.support.project import Project

SHORT = """
registry: {{name: kinds, export: []}}
data: {data}
train:
  patch_size: {patch}
  num_steps: 12
  precision: fp32
  validate_cases: 1
  model: {{channels: [4, 8, 16]}}
evaluate: {{tta: false}}
compute: {{num_workers: 1}}
"""


COLOURS = np.array([[0x10, 0x20, 0x30], [255, 0, 255]], np.uint8)


def write_pictures(root: Path) -> str:
    """RGB photographs of discs, as microscopy comes, with coloured masks; no size divides by the network's strides."""
    rng = np.random.default_rng(0)
    for folder in ("images", "masks"):
        (root / folder).mkdir(parents=True)
    for i in range(6):
        rows, columns = np.mgrid[: 50 + i, :43]
        mask = ((rows - 25) ** 2 + (columns - 15 - i) ** 2 < 120).astype(np.uint8)
        image = rng.integers(0, 90, (*mask.shape, 3), dtype=np.uint8) + 120 * mask[..., None]
        Image.fromarray(image.astype(np.uint8)).save(root / "images" / f"cell{i}.png")
        Image.fromarray(COLOURS[mask]).save(root / "masks" / f"cell{i}.png")
    return f"{{root: {root}, ndim: 2, classes: {{background: '#102030', cell: '#ff00ff'}}}}"


def write_two_channels(root: Path) -> str:
    """T1 and T2 in files of their own; spacing and orientation differ from case to case."""
    rng = np.random.default_rng(0)
    for folder in ("imagesTr", "labelsTr"):
        (root / folder).mkdir(parents=True)
    description = {"channel_names": {"0": "T1", "1": "T2"}, "labels": {"background": 0, "blob": 1}}
    (root / "dataset.json").write_text(json.dumps(description))
    for i in range(6):
        spacing = np.array([1.0, 1.0, 2.0 + 0.3 * (i % 3)])
        affine = np.diag([*(spacing * [(-1) ** i, 1, 1]), 1])
        grid = np.stack(np.meshgrid(*map(np.arange, (24 + i, 22, 13)), indexing="ij"), axis=-1)
        mask = (((grid - [11, 10, 6]) * spacing) ** 2).sum(axis=-1) < 50
        for channel, contrast in enumerate((10, 30)):
            image = (rng.normal(50, 10, mask.shape) + contrast * mask).astype(np.float32)
            nib.save(nib.Nifti1Image(image, affine), root / "imagesTr" / f"case{i}_000{channel}.nii.gz")
        nib.save(nib.Nifti1Image(mask.astype(np.uint8), affine), root / "labelsTr" / f"case{i}.nii.gz")
    return f"{{root: {root}, preprocess: {{spacing: median, foreground_crop: true}}}}"


def picture_files(root: Path, case_id: str) -> tuple[list[Path], Path]:
    return [root / "images" / f"{case_id}.png"], root / "masks" / f"{case_id}.png"


def volume_files(root: Path, case_id: str) -> tuple[list[Path], Path]:
    channels = [root / "imagesTr" / f"{case_id}_000{channel}.nii.gz" for channel in (0, 1)]
    return channels, root / "labelsTr" / f"{case_id}.nii.gz"


def foreground_in(path: Path) -> np.ndarray:
    """Mask of the class that is not the background; a picture has its two colours and no others."""
    if path.suffix != ".png":
        return np.asarray(nib.load(path).dataobj) == 1
    picture = np.asarray(Image.open(path))
    is_class = (picture[..., None, :] == COLOURS).all(axis=-1)
    assert is_class.any(axis=-1).all()
    return np.asarray(is_class[..., 1])


@pytest.mark.parametrize(
    ("write", "patch", "files_of"),
    [(write_pictures, [32, 32], picture_files), (write_two_channels, [16, 16, 16], volume_files)],
    ids=["pictures", "two_channels"],
)
def test_registered_model_gives_the_evaluated_labels(
    tmp_path_factory: pytest.TempPathFactory,
    write: Callable[[Path], str],
    patch: list[int],
    files_of: Callable[[Path, str], tuple[list[Path], Path]],
) -> None:
    home = tmp_path_factory.mktemp("k")
    project = Project(home, SHORT.format(data=write(home / "raw"), patch=patch))
    result = project.run("register", str(project.config))

    mlflow.set_tracking_uri(result["tracking_uri"])
    model = mlflow.pyfunc.load_model(result["model_uri"])
    for row in pq.read_table(Path(result["report"]).parent / "cases.parquet").to_pylist():
        images, label = files_of(home / "raw", row["case_id"])
        truth = foreground_in(label)
        output = str(home / f"{row['case_id']}{''.join(label.suffixes)}")
        model.predict({"path": ["|".join(map(str, images))], "output": [output]})
        predicted = foreground_in(Path(output))
        assert predicted.shape == truth.shape
        dice = 2 * (predicted & truth).sum() / (predicted.sum() + truth.sum())
        assert dice == pytest.approx(row["dice"], abs=1e-6)
