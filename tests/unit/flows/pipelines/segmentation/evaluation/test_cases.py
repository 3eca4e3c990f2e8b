"""Which cases are shown in pictures, and in which order cases are listed."""

from __future__ import annotations

import math

import pytest

from flows.pipelines.segmentation.evaluation.cases import Cases, choose_cases, mean_dice
from flows.pipelines.segmentation.evaluation.scoring import ClassScore
from tests.support.reports import class_score
from unet_models.metrics.summary import MEAN_CLASS

SCORES = [
    class_score("good", "front", 0.9),
    class_score("good", "back", 0.7),
    class_score("half", "front", 0.6),
    class_score("half", "back", math.nan),
    class_score("none", "front", math.nan),
    class_score("none", "back", math.nan),
    class_score("bad", "front", 0.1),
    class_score("bad", "back", 0.3),
]


def test_mean_dice_is_over_the_classes_that_a_case_has() -> None:
    assert mean_dice(SCORES) == pytest.approx({"good": 0.8, "half": 0.6, "none": math.nan, "bad": 0.2}, nan_ok=True)


def test_worst_median_and_best_case_are_chosen_with_their_rows() -> None:
    scores = [score.model_copy(update={"row": number // 2}) for number, score in enumerate(SCORES)]
    chosen = {role: (case_id, row) for role, (case_id, _, row) in choose_cases(scores).items()}
    assert chosen == {"worst": ("bad", 3), "median": ("half", 1), "best": ("good", 0)}
    assert choose_cases([class_score("none", "front", math.nan)]) == {}


def test_cases_are_ordered_worst_first_without_a_dice_last() -> None:
    cases = Cases.of(SCORES, [])
    assert list(cases.scores) == ["bad", "half", "good", "none"]
    assert [dot.value for dot in cases.dots("front")] == pytest.approx([0.1, 0.6, 0.9, math.nan], nan_ok=True)
    assert [dot.value for dot in cases.dots(MEAN_CLASS)][:3] == pytest.approx([0.2, 0.6, 0.8])
    assert cases.dots("front")[0].href == "#case-bad"


def test_undefined_scores_travel_as_json() -> None:
    """NaN and infinity are no JSON numbers; the actor's answer holds them all the same."""
    score = class_score("none", "front", math.nan)
    again = ClassScore.model_validate_json(score.model_dump_json())
    assert math.isnan(again.metrics["dice"])
    assert again.metrics["hd95_mm"] == 1.25
