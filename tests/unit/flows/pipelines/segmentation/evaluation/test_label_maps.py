"""Label maps of held-out cases: found again by later stages, and missed where one is gone."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from data_pipelines.digests import VERIFY_VARIABLE
from data_pipelines.errors import DataError
from data_pipelines.volumes.preprocess import StoredGeometry
from flows.pipelines.segmentation.evaluation import scoring
from flows.pipelines.segmentation.evaluation.label_maps import FOLDER, LIST, maps_exist, read_map, write_list, write_map
from flows.pipelines.segmentation.evaluation.scoring import CaseScorer, read_label_map, read_scores
from flows.stages.record import Record
from tests.support.records import CountFigures, finished
from tests.support.volumes import numbered

LABELS = numbered("background", "organ")
NUMBERS = np.arange(24).reshape(2, 3, 4).astype(np.uint8) % 2
STORED = StoredGeometry(
    stored_shape=(2, 3, 4),
    stored_spacing=(1, 1, 1),
    axes=(0, 1, 2),
    flips=(False,) * 3,
    crop=((0, 2), (0, 3), (0, 4)),
    shape=(2, 3, 4),
    spacing=(1, 1, 1),
    affine=None,
)
CASE = "pat 1.2"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "attempt" / FOLDER


@pytest.fixture
def record(folder: Path) -> Record[CountFigures]:
    maps = [write_map(str(folder), case, NUMBERS, LABELS, STORED) for case in (CASE, "b")]
    (folder.parent / LIST).write_bytes(write_list(maps))
    return finished("evaluate", CountFigures(), str(folder.parents[1]), maps_plain=f"attempt/{LIST}", cases="gone")


def test_a_label_map_is_read_by_the_name_of_its_case(record: Record[CountFigures], folder: Path) -> None:
    assert sorted(path.name for path in folder.iterdir()) == ["b.nii.gz", "pat%201%2E2.nii.gz"]
    np.testing.assert_array_equal(read_map(str(folder), CASE, LABELS, STORED), NUMBERS)


def test_a_lost_label_map_makes_the_record_invalid(record: Record[CountFigures], folder: Path) -> None:
    assert maps_exist(record)
    (folder / "b.nii.gz").unlink()
    assert not maps_exist(record)


def test_a_truncated_label_map_makes_the_record_invalid(
    record: Record[CountFigures], folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    content = (folder / "b.nii.gz").read_bytes()
    (folder / "b.nii.gz").write_bytes(content[:-9])
    assert not maps_exist(record)
    assert f"{folder / 'b.nii.gz'} is missing or changed: evaluate runs again" in caplog.text


def test_a_damaged_label_map_is_seen_with_verify(
    record: Record[CountFigures], folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("UNETFLOW_CACHE", str(tmp_path / "cache"))
    content = (folder / "b.nii.gz").read_bytes()
    (folder / "b.nii.gz").write_bytes(content[:-9] + bytes(9))
    assert maps_exist(record)
    monkeypatch.setenv(VERIFY_VARIABLE, "1")
    assert not maps_exist(record)


@pytest.mark.parametrize("damage", [lambda path: path.unlink(), lambda path: path.write_bytes(b"")])
def test_who_reads_a_lost_label_map_is_told_what_to_do(
    record: Record[CountFigures], folder: Path, damage: object
) -> None:
    path = folder / "pat%201%2E2.nii.gz"
    damage(path)  # type: ignore[operator]
    with pytest.raises(DataError) as error:
        read_map(str(folder), CASE, LABELS, STORED)
    (problem,) = error.value.problems
    assert (problem.rule, problem.path) == ("lost-label-map", str(path))
    assert problem.message == "the predicted label map of case pat 1.2 is missing or damaged"
    assert "run the same command again with --verify" in problem.remedy


def test_scores_have_the_name_of_the_case_and_not_its_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scoring, "read_stored_geometry", lambda reader, row: STORED)
    monkeypatch.setattr(scoring, "stored_truth", lambda reader, row, done: NUMBERS)
    monkeypatch.setattr(CaseScorer, "_segment", lambda *_: NUMBERS)
    scorer = CaseScorer()
    job = {"voxels_per_stratum": 0, "tolerance_mm": 1.0, "predictions_uri": str(tmp_path), "subsets": ()}
    scorer.job = cast("Any", SimpleNamespace(exit_thresholds=(), **job))
    bundle = SimpleNamespace(labels=LABELS, model=SimpleNamespace(fusion=None))
    scorer.reader, scorer.segmenter = cast("Any", None), cast("Any", SimpleNamespace(bundle=bundle))
    result = scorer({"row": 7, "case_id": CASE, "job": "loaded"})
    (score,) = read_scores(result)
    assert (score.case_id, score.row, score.metrics["dice"]) == ("pat 1.2", 7, 1.0)
    assert json.loads(result["exits"]) == []
    written = tmp_path / read_label_map(result).name
    assert written.name == "pat%201%2E2.nii.gz"
    assert read_label_map(result).size == written.stat().st_size
    np.testing.assert_array_equal(read_map(str(tmp_path), CASE, LABELS, STORED), NUMBERS)
