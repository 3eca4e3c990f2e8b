"""Pictures of cases: planes have the names of anatomy where the directions of the axes are known."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from data_pipelines.volumes.formats.base import Geometry
from data_pipelines.volumes.preprocess import StoredGeometry, has_canonical_axes, prepare
from data_pipelines.volumes.specs import PreprocessSpec
from flows.pipelines.segmentation.config import SegmentationConfig
from flows.pipelines.segmentation.evaluation import report
from flows.pipelines.segmentation.evaluation.cases import CaseView
from flows.pipelines.segmentation.evaluation.page import SegmentationPage
from flows.pipelines.segmentation.postprocess import Choice, Postprocessing
from flows.pipelines.segmentation.shard import VolumeShardFigures
from flows.report.overlays import overlay_planes
from flows.stages.attempt import Attempt
from tests.support.pages import Page, read_pixels
from tests.support.records import finished
from tests.support.reports import class_score, segmentation_report
from tests.support.volumes import corner_volume

LPS = ((-1.0, 0.0, 0.0, 0.0), (0.0, -1.0, 0.0, 0.0), (0.0, 0.0, 1.0, 0.0), (0.0, 0.0, 0.0, 1.0))
SENTENCE = "the patient's right is on the left"


def stored(affine: Any = LPS, **preprocess: Any) -> StoredGeometry:
    image, _ = corner_volume()
    geometry = Geometry(image.shape[1:], (1, 1, 1), affine)
    return StoredGeometry.of(geometry, prepare(image, geometry, PreprocessSpec(**preprocess), None).done)


@pytest.mark.parametrize(
    ("affine", "preprocess", "is_canonical"),
    [
        (LPS, {}, True),
        (LPS, {"orientation": "stored"}, False),
        (np.eye(4).tolist(), {"orientation": "stored"}, True),
        (LPS, {"axes": (2, 1, 0)}, False),
        (None, {}, False),
    ],
    ids=["canonical", "stored", "stored, and canonical", "other axes", "no affine"],
)
def test_directions_are_known_of_canonical_axes(affine: Any, preprocess: dict[str, Any], is_canonical: bool) -> None:
    done = stored(affine, **preprocess)
    assert has_canonical_axes(done, done.geometry) == is_canonical


def test_planes_of_other_axes_are_numbered_and_not_reversed() -> None:
    image, truth = corner_volume()
    planes = overlay_planes(image, truth, np.zeros_like(truth), (1, 1, 1), 100, is_canonical=False)
    assert [plane.name for plane in planes] == [
        "across axis 2, slice 4 of 4",
        "across axis 1, slice 9 of 10",
        "across axis 0, slice 6 of 6",
    ]
    sizes = [read_pixels(plane.png).shape[:2] for plane in planes]
    assert sizes == [(100, 60), (40, 60), (40, 100)], "one scale: the second of the other axes down, the first right"
    for plane in planes:
        red = read_pixels(plane.png)[..., 0]
        rows, columns = red.shape
        assert red[3 * rows // 4 :].max() == 255, "the corner of the highest indices"
        assert red[: rows // 2].max() < 40
        assert red[:, : columns // 2].max() < 40


def test_the_report_says_nothing_of_directions_that_are_not_known() -> None:
    image, truth = corner_volume()
    for affine, is_said in ((LPS, True), (None, False)):
        done = stored(affine)
        is_known = has_canonical_axes(done, done.geometry)
        planes = overlay_planes(image, truth, truth, done.spacing, 40, is_canonical=is_known)
        view = CaseView("bad", "worst", 0.125, planes, is_canonical=is_known)
        pictures = Page(segmentation_report(views=[view])).sections["section-cases-in-pictures"]
        assert (SENTENCE in pictures) == is_said


def test_the_dice_by_fold_is_that_of_the_record(
    monkeypatch: pytest.MonkeyPatch, shard_figures: VolumeShardFigures
) -> None:
    """The mean over the classes of means over cases: lesions are in one case of two."""
    pages: list[SegmentationPage] = []
    for name, value in {"read_problems": [], "read_notices": [], "_views": []}.items():
        monkeypatch.setattr(report, name, lambda *_, value=value: value)
    monkeypatch.setattr(report, "_write", lambda attempt, page: pages.append(page))
    folds = [SimpleNamespace(number=n, shards=finished("shard", shard_figures), predictions_uri="p") for n in (0, 1)]
    comparison = SimpleNamespace(folds=folds, best=None, networks=lambda best: {}, candidates={}, variants=[])
    scores = {0: [class_score("a", "spleen", 0.9), class_score("a", "lesion", 0.5)], 1: []}
    choice = Choice(Postprocessing(), (), 0.8, 0.8)
    attempt, config = Attempt("/nowhere", "key", "attempt"), SegmentationConfig()
    dice = {0: 0.75, 1: math.nan}
    report.write_ensemble_report(attempt, config, cast("Any", comparison), scores, [], choice, None, dice)
    assert [(each.name, each.num_cases) for each in pages[0].members] == [("fold 0", 1), ("fold 1", 0)]
    np.testing.assert_equal([each.dice for each in pages[0].members], [0.75, math.nan])
