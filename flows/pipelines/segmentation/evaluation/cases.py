"""Scores of cases as the segmentation report takes them, and where links to a case lead."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from flows.report.html import unique_anchors
from flows.report.overlays import Plane
from flows.report.strip import Dot

MEAN = "mean"
"""Class name under which the mean over the foreground classes is summarised."""
CaseRow = Mapping[str, Any]
"""``case_id``, ``class_name`` and one number per metric."""


class Summary(Protocol):
    """Mean of one metric over the cases, with its 95% bootstrap interval from ``low`` to ``high``."""

    @property
    def metric(self) -> str: ...
    @property
    def class_name(self) -> str: ...
    @property
    def mean(self) -> float: ...
    @property
    def low(self) -> float: ...
    @property
    def high(self) -> float: ...
    @property
    def num_cases(self) -> int: ...


@dataclass(frozen=True, slots=True)
class CaseView:
    """One case in pictures; ``dice`` is its mean over the classes."""

    case_id: str
    role: Literal["worst", "median", "best"]
    dice: float
    planes: Sequence[Plane]


@dataclass(frozen=True, slots=True)
class Cases:
    """Rows by case, the lowest mean Dice first and cases without any last; and where links to them lead."""

    rows: dict[str, list[CaseRow]]
    dice: dict[str, float]
    row_anchors: dict[str, str]
    picture_anchors: dict[str, str]

    @staticmethod
    def of(case_rows: Sequence[CaseRow], views: Sequence[CaseView]) -> Cases:
        grouped: dict[str, list[CaseRow]] = {}
        for row in case_rows:
            if row["class_name"] != MEAN:
                grouped.setdefault(str(row["case_id"]), []).append(row)
        dice = {case_id: nanmean([number(row["dice"]) for row in rows]) for case_id, rows in grouped.items()}
        order = sorted(grouped, key=lambda case_id: (math.isnan(dice[case_id]), dice[case_id], case_id))
        return Cases(
            rows={case_id: grouped[case_id] for case_id in order},
            dice=dice,
            row_anchors=unique_anchors(order, prefix="case-"),
            picture_anchors=unique_anchors(list(dict.fromkeys(view.case_id for view in views)), prefix="picture-"),
        )

    def dots(self, class_name: str) -> list[Dot]:
        """Each case's Dice of one class, or its mean over the classes, leading to the case's row."""
        dots = []
        for case_id, rows in self.rows.items():
            values = [number(row["dice"]) for row in rows if row["class_name"] == class_name]
            value = self.dice[case_id] if class_name == MEAN else (values or [math.nan])[0]
            dots.append(Dot(case_id, value, "#" + self.row_anchors[case_id]))
        return dots


def number(value: Any) -> float:
    """A score as a float; None is NaN."""
    return math.nan if value is None else float(value)


def nanmean(values: Sequence[float]) -> float:
    """Mean of the values that are not NaN; NaN where there is none."""
    present = [value for value in values if not math.isnan(value)]
    return math.fsum(present) / len(present) if present else math.nan
