"""Labels as they come, through the whole pipeline: nnU-Net's integration data sets 996 to 998, in small.

Theirs are made from the hippocampus, these from phantoms: a part of the slices annotated (998), regions (997), both
(996).
Their 999 has plain classes, as the data sets of other tests.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import mlflow
import nibabel as nib
import numpy as np
import onnxruntime
import pyarrow.parquet as pq
import pytest
import torch
from monai.metrics import compute_dice

from data_pipelines.notices import count_notices
from data_pipelines.volumes.phantoms import write_phantoms
from flows.pipelines.segmentation.config import SegmentationConfig
from flows.pipelines.segmentation.evaluate import evaluate_stage
from flows.pipelines.segmentation.register import register_model
from flows.pipelines.segmentation.shard import shard_stage
from flows.pipelines.segmentation.train import train_stage
from flows.stages.shards import read_notices
from flows.stages.stage import run_stage

IGNORED = 4
REGIONS = {"background": 0, "organ": [1, 2, 3], "kidney or lesion": [2, 3], "lesion": 3}
DATASETS: dict[int, dict[str, Any]] = {
    996: {"labels": REGIONS | {"ignore": IGNORED}, "regions_class_order": [1, 2, 3]},
    997: {"labels": REGIONS, "regions_class_order": [1, 2, 3]},
    998: {"labels": {"background": 0, "liver": 1, "kidney": 2, "lesion": 3, "ignore": IGNORED}},
}
MARGIN = 0.1
"""Dice above what painting every voxel gives, of the largest target: few steps teach no more."""


def write_annotated(root: Path, declared: dict[str, Any]) -> Path:
    """Write phantoms with these labels; where ``ignore`` is among them, four of five rows and columns are ignored."""
    write_phantoms(root, 16, seed=0, ndim=2)
    description = json.loads((root / "dataset.json").read_text())
    (root / "dataset.json").write_text(json.dumps(description | declared))
    if "ignore" in declared["labels"]:
        for path in (root / "labelsTr").iterdir():
            stored = nib.load(path)
            label = np.asarray(stored.dataobj).copy()
            seen = np.zeros(label.shape, bool)
            seen[::5] = seen[:, ::5] = True
            label[~seen] = IGNORED
            nib.save(nib.Nifti1Image(label, stored.affine), path)
    return root


def configure(number: int, home: Path, root: Path) -> SegmentationConfig:
    return SegmentationConfig.model_validate(
        {
            "storage": str(home / "s"),
            "registry": {"name": f"labels-{number}", "export": ["onnx"] if number == 996 else []},
            "data": {"root": str(root), "ndim": 2},
            "train": {
                "patch_size": [40, 48],
                "global_batch_size": 8,
                "num_steps": 60,
                "validate_cases": 1,
                "class_weights": "auto",
                "model": {"channels": [8, 16, 32], "deep_supervision": 1},
            },
            "evaluate": {"exit_confidence": 0.95},
            "compute": {"num_workers": 1},
        }
    )


def values_of(number: int) -> dict[str, list[int]]:
    """Values of each target of a data set."""
    labels = {name: value for name, value in DATASETS[number]["labels"].items() if name not in ("background", "ignore")}
    return {name: value if isinstance(value, list) else [value] for name, value in labels.items()}


def masks_of(label: np.ndarray, seen: np.ndarray, values: Iterable[list[int]]) -> torch.Tensor:
    """(1, targets, *spatial) of the annotated voxels that have the values of each target."""
    return torch.from_numpy(np.stack([np.isin(label, each) & seen for each in values])[None]).float()


def read(path: Path) -> np.ndarray:
    return np.squeeze(np.asarray(nib.load(path).dataobj))


@pytest.mark.parametrize("number", DATASETS)
def test_nnunets_data_sets_reach_a_registered_model(number: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    home, targets = tmp_path_factory.mktemp(str(number)), values_of(number)
    root = write_annotated(home / "raw", DATASETS[number])
    config = configure(number, home, root)
    shards = run_stage(shard_stage(config.data, config.storage_uri), config.storage_uri).record
    training = run_stage(train_stage(config, shards), config.storage_uri).record
    scores = run_stage(evaluate_stage(config, shards, training), config.storage_uri).record
    version = run_stage(register_model(config, shards, training, scores), config.storage_uri).record

    assert count_notices(read_notices(shards)).get("ignored-voxels", 0) == (16 if number in (996, 998) else 0)
    rows = pq.read_table(scores.output("cases")).to_pylist()
    assert {row["class_name"] for row in rows} == targets.keys()
    found = {(row["case_id"], row["class_name"]): row["dice"] for row in rows}
    largest, constant = next(iter(targets)), []
    for case_id in sorted({row["case_id"] for row in rows}):
        truth = read(root / "labelsTr" / f"{case_id}.nii.gz")
        predicted = read(Path(scores.output("cases")).parent / "predictions" / f"{case_id}.nii.gz")
        assert set(np.unique(predicted)) <= {0, 1, 2, 3}
        masks = [masks_of(label, truth != IGNORED, targets.values()) for label in (predicted, truth)]
        theirs = compute_dice(masks[0], masks[1], ignore_empty=False)[0].tolist()
        for name, dice, is_there in zip(targets, theirs, (masks[0] + masks[1])[0].flatten(1).any(1), strict=True):
            assert found[case_id, name] == pytest.approx(dice if is_there else np.nan, abs=1e-6, nan_ok=True)
        count = masks[1][0, 0].sum()
        constant.append(float(2 * count / ((truth != IGNORED).sum() + count)))
    assert scores.figures.metrics[f"dice/{largest}"] > np.mean(constant) + MARGIN

    mlflow.set_tracking_uri(version.figures.tracking_uri)
    model = mlflow.pyfunc.load_model(version.figures.model_uri)
    image = root / "imagesTr" / f"{case_id}_0000.nii.gz"
    np.testing.assert_array_equal(model.predict({"path": [str(image)]})[0].squeeze(), predicted)
    if number == 996:
        check_onnx(version.figures.model_uri)


def check_onnx(model_uri: str) -> None:
    """The exported network has an output for each region."""
    folder = Path(mlflow.artifacts.download_artifacts(model_uri))
    (path,) = folder.rglob("unet.onnx")
    (logits,) = onnxruntime.InferenceSession(path).run(None, {"images": np.zeros((1, 1, 40, 48), np.float32)})
    assert logits.shape == (1, 3, 40, 48)
