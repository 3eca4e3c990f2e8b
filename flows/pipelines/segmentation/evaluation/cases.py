"""Scores and pictures of cases as the report takes them, and where links to a case lead."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from flows.pipelines.segmentation.evaluation.scoring import ClassScore
from flows.report.html import unique_anchors
from flows.report.planes import Plane
from flows.report.strip import Dot
from unet_models.metrics.summary import MEAN_CLASS

Role = Literal["worst", "median", "best"]


@dataclass(frozen=True, slots=True)
class CaseView:
    """One case in pictures; ``dice`` is its mean over the classes."""

    case_id: str
    role: Role
    dice: float
    planes: Sequence[Plane]
    gates: Mapping[str, bytes] = field(default_factory=dict)
    """PNG of each map of attention-gate weights, by name; empty where the network has no gates."""
    is_canonical: bool = True
    """True where the axes of a volume run right, anterior, superior, by which its planes have names."""


@dataclass(frozen=True, slots=True)
class Cases:
    """Scores by case, the lowest mean Dice first and cases without any last; and where links to them lead."""

    scores: dict[str, list[ClassScore]]
    dice: dict[str, float]
    row_anchors: dict[str, str]
    picture_anchors: dict[str, str]

    @staticmethod
    def of(scores: Sequence[ClassScore], views: Sequence[CaseView]) -> Cases:
        """Group scores by case and give every case its anchors."""
        grouped: dict[str, list[ClassScore]] = {}
        for score in scores:
            grouped.setdefault(score.case_id, []).append(score)
        dice = mean_dice(scores)
        order = sorted(grouped, key=lambda case_id: (math.isnan(dice[case_id]), dice[case_id], case_id))
        return Cases(
            scores={case_id: grouped[case_id] for case_id in order},
            dice=dice,
            row_anchors=unique_anchors(order, prefix="case-"),
            picture_anchors=unique_anchors(list(dict.fromkeys(view.case_id for view in views)), prefix="picture-"),
        )

    def dots(self, class_name: str) -> list[Dot]:
        """Return each case's Dice of one class, or its mean over the classes, linked to the case's row."""
        dots = []
        for case_id, scores in self.scores.items():
            values = [score.metrics["dice"] for score in scores if score.class_name == class_name]
            value = self.dice[case_id] if class_name == MEAN_CLASS else (values or [math.nan])[0]
            dots.append(Dot(case_id, value, "#" + self.row_anchors[case_id]))
        return dots


def mean_dice(scores: Sequence[ClassScore]) -> dict[str, float]:
    """Compute each case's mean Dice over the classes that have one; NaN where none has."""
    values: dict[str, list[float]] = {}
    for score in scores:
        values.setdefault(score.case_id, []).append(score.metrics["dice"])
    return {case_id: _nanmean(dice) for case_id, dice in values.items()}


def choose_cases(scores: Sequence[ClassScore]) -> dict[Role, tuple[str, float, int]]:
    """Return role to (case, mean Dice, index row) of the worst, the median and the best case."""
    rows = {score.case_id: score.row for score in scores}
    ranked = sorted((dice, case_id) for case_id, dice in mean_dice(scores).items() if math.isfinite(dice))
    if not ranked:
        return {}
    places: dict[Role, int] = {"worst": 0, "median": len(ranked) // 2, "best": len(ranked) - 1}
    chosen = {role: ranked[place] for role, place in places.items()}
    return {role: (case_id, dice, rows[case_id]) for role, (dice, case_id) in chosen.items()}


def _nanmean(values: Sequence[float]) -> float:
    present = [value for value in values if not math.isnan(value)]
    return math.fsum(present) / len(present) if present else math.nan
