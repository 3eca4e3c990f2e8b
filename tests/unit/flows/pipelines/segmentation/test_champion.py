"""Comparison with the champion: which cases count."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any, cast

import pytest

from data_pipelines.errors import InputError
from flows.pipelines.segmentation import champion as module
from flows.pipelines.segmentation.config import SegmentationConfig
from flows.registry.champion import Champion
from flows.registry.gate import Comparison


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
