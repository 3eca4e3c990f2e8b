"""Comparison with the champion: which cases count."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from data_pipelines.errors import InputError
from data_pipelines.volumes.modalities import IMAGE_ALONE
from flows.pipelines.segmentation import champion as module
from flows.pipelines.segmentation.config import SegmentationConfig
from flows.pipelines.segmentation.evaluation.scoring import CaseScorer
from flows.pipelines.segmentation.postprocess import Postprocessing
from flows.registry.champion import Champion
from flows.registry.gate import Comparison
from flows.registry.models import TAG_PREFIX


def rows(**dice: float) -> list[dict[str, Any]]:
    return [{"case_id": case, "class_name": "organ", "row": 0, "dice": value} for case, value in dice.items()]


def test_an_organ_drawn_where_there_is_none_counts_against_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """Case c shows no organ: the champion draws none (undefined, NaN), the new version draws one (0)."""
    scores = {"ours": rows(a=0.9, b=0.9, c=0.0), "theirs": rows(a=0.8, b=0.8, c=math.nan)}
    monkeypatch.setattr(module, "_rows", lambda record: scores[record])
    monkeypatch.setattr(module, "evaluation_digest", lambda config, shards: "data")
    monkeypatch.setattr(Champion, "find_evaluation", lambda *_: "theirs")
    holder = Champion("organ", "1", "models:/m-1", {})
    nothing = cast("Any", None)
    outcome = module.compare_with_champion(SegmentationConfig(), nothing, cast("Any", "ours"), holder, "dice").outcome
    assert isinstance(outcome, Comparison)
    assert (outcome.ours, outcome.theirs, outcome.num_cases) == (pytest.approx(0.6), pytest.approx(0.8), 3)
    assert outcome.lower_bound < 0


def test_an_average_over_folds_has_seen_the_held_out_cases() -> None:
    bundle = cast("Any", SimpleNamespace(num_members=5))
    with pytest.raises(InputError, match="it averages 5 folds, and of these cases most were trained on"):
        module.check_fits(bundle, cast("Any", None))


def test_a_champion_is_scored_with_its_own_postprocessing() -> None:
    """As the registered model predicts: its largest component alone."""
    numbers = np.zeros((4, 12), np.uint8)
    numbers[:2, :2], numbers[:3, 6:10] = 1, 1
    scorer = CaseScorer.__new__(CaseScorer)
    scorer.job, scorer.partner = cast("Any", SimpleNamespace(raw_images=None)), None
    scorer.reader = cast("Any", SimpleNamespace(array=lambda row, name: numbers))
    bundle = SimpleNamespace(postprocessing=Postprocessing(largest_component=(1,)))
    scorer.segmenter = cast("Any", SimpleNamespace(bundle=bundle, segment_sample=lambda *_: numbers))
    stored = cast("Any", SimpleNamespace(stored_spacing=(1.0, 1.0)))
    assert scorer._segment(0, stored, IMAGE_ALONE).sum() == 12


def test_a_champion_of_candidates_has_its_scores_in_their_ensemble() -> None:
    """Those of the stage ``evaluate`` are without its postprocessing."""
    asked: list[str] = []

    class Asked(Champion):
        def find_evaluation(self, evaluation_data: str, root: str, figures: Any, stage: str = "evaluate") -> Any:
            asked.append(stage)
            raise InputError("found out")

    for tags in ({}, {f"{TAG_PREFIX}ensemble_key": "k", f"{TAG_PREFIX}evaluate_key": "j"}):
        with pytest.raises(InputError, match="found out"), pytest.MonkeyPatch.context() as patch:
            patch.setattr(module, "evaluation_digest", lambda config, shards: "data")
            nothing = cast("Any", None)
            module.compare_with_champion(SegmentationConfig(), nothing, nothing, Asked("m", "1", "s", tags), "dice")
    assert asked == ["evaluate", "ensemble"]


def test_scores_of_earlier_versions_name_cases_by_their_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """Their order is another one, and each case is compared with itself all the same."""
    ours = [row | {"case_id": name} for name, row in zip(("a-b", "a.b"), rows(x=0.9, y=0.5), strict=True)]
    theirs = [row | {"case_id": name} for name, row in zip(("a%2Eb", "a-b"), rows(x=0.4, y=0.8), strict=True)]
    monkeypatch.setattr(module, "_rows", lambda record: {"ours": ours, "theirs": theirs}[record])
    registry = SegmentationConfig().registry
    compared = module.compare_rows(cast("Any", "ours"), cast("Any", "theirs"), "dice", registry)
    assert compared.rows is not None
    assert compared.rows.select(["case", "dice", "champion dice"]).to_pylist() == [
        {"case": "a-b", "dice": 0.9, "champion dice": 0.8},
        {"case": "a.b", "dice": 0.5, "champion dice": 0.4},
    ]
    assert isinstance(compared.outcome, Comparison)
    assert compared.outcome.lower_bound > 0, "better in each case by 0.1"
