"""Validation during training: of a case that has a Dice at least, and no figure where none has."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import numpy as np
import pyarrow as pa
import pytest
import torch

from data_pipelines.shards.index import IMAGE, write_table
from data_pipelines.shards.reader import ShardReader
from flows.pipelines.segmentation.task import SegmentationTask, _MeanDice
from flows.training.held_out import SplitShards
from tests.support.volumes import numbered
from unet_models.sampling.sweep import Sweep
from unet_models.specs.segmentation import TrainSpec

SHOWN = [[90, 10], [100, 0], [95, 5], [100, 0], [100, 0]]
"""Voxels of background and organ in five cases."""


def task_of(folder: Path, voxels: list[list[int]]) -> SegmentationTask:
    write_table(str(folder / "index.parquet"), pa.table({"class_voxels": voxels}))
    spec = TrainSpec(patch_size=(8, 8), validate_cases=2)
    labels = numbered("background", "organ")
    uri = str(folder / "index.parquet")
    return SegmentationTask(spec=spec, index_uri=uri, shards_uri="", num_channels=1, labels=labels)


@pytest.mark.parametrize(("voxels", "rows"), [(SHOWN, [1, 2]), ([[100, 0]] * 5, [1, 4]), ([[99, 1]] * 5, [1, 4])])
def test_a_case_that_shows_a_class_is_validated(tmp_path: Path, voxels: list[list[int]], rows: list[int]) -> None:
    """Where there is one; the others show what is drawn where nothing is."""
    shards = SplitShards(cast("ShardReader", None), np.array([0]), np.array([1, 2, 3, 4]), np.zeros(5, int))
    assert task_of(tmp_path, voxels)._validated(shards, rank=0) == rows


def test_without_a_case_that_shows_a_class_there_is_no_dice(tmp_path: Path) -> None:
    """Nothing there and nothing predicted is right, and not a Dice of 0."""
    measure = _MeanDice(task_of(tmp_path, SHOWN), cast("ShardReader", None), [], torch.device("cpu"))
    assert measure(torch.nn.Identity()) == {}


class _OneCase:
    """Stands for the reader of shards: a case of 24 x 20 pixels, whose organ is where the image is bright."""

    image = np.random.default_rng(0).normal(size=(1, 24, 20)).astype(np.float32)

    def array(self, row: int, name: str) -> np.ndarray:
        return self.image if name == IMAGE else (self.image[0] > 0.5).astype(np.uint8)

    def has(self, row: int, name: str) -> bool:
        return False


class _Bright(torch.nn.Module):
    def forward(self, images: torch.Tensor, *given: torch.Tensor | None) -> torch.Tensor:
        return torch.cat([torch.zeros_like(images), images], dim=1)


def test_the_order_of_a_validation_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    measure = _MeanDice(task_of(tmp_path, SHOWN), cast("ShardReader", _OneCase()), [0], torch.device("cpu"))
    found, truth = _OneCase.image[0] > 0, _OneCase.image[0] > 0.5
    expected = 2 * (found & truth).sum() / (found.sum() + truth.sum())
    for sweep in (Sweep(), Sweep(axis=1, num_strips=3, batch_size=1)):
        monkeypatch.setattr("flows.pipelines.segmentation.task.plan_sweep", lambda *_, sweep=sweep: sweep)
        assert measure(_Bright()) == {"val/dice/organ": pytest.approx(expected), "val/dice": pytest.approx(expected)}
