"""How each segmentation metric is named, written and read."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from flows.report.axes import number_text
from flows.report.blocks import Cell


@dataclass(frozen=True, slots=True)
class Measure:
    """One metric for readers; ``metric`` is its name in records and in MLflow."""

    metric: str
    title: str
    better: str
    decimals: int
    meaning: str

    def text(self, value: float | None) -> str:
        """The value in the measure's own precision; NaN is "absent"."""
        return number_text(value, self.decimals)

    def interval(self, low: float, high: float) -> str:
        """The interval in words; empty where there is none."""
        return "" if math.isnan(low) or math.isnan(high) else f"{self.text(low)} to {self.text(high)}"

    def cell(self, value: float, note: str = "") -> Cell:
        """The value as a table cell."""
        return Cell(self.text(value), note=note, number=value)


DICE = Measure(
    metric="dice",
    title="Dice",
    better="higher is better",
    decimals=3,
    meaning="Overlap: twice the shared volume, divided by the sum of the predicted and the true volume. "
    "0 is no overlap, 1 is identical.",
)
MEASURES = (
    DICE,
    Measure(
        metric="iou",
        title="IoU",
        better="higher is better",
        decimals=3,
        meaning="Overlap, counted more strictly: the shared volume, divided by the volume that either covers. "
        "0 to 1, never above Dice.",
    ),
    Measure(
        metric="surface_dice",
        title="Surface Dice",
        better="higher is better",
        decimals=3,
        meaning="Share of both surfaces that lies within the tolerance (in mm, see the configuration) of the other "
        "surface. 0 to 1. It judges the border, where Dice judges the bulk.",
    ),
    Measure(
        metric="hd95_mm",
        title="HD95 (mm)",
        better="lower is better",
        decimals=2,
        meaning="95% Hausdorff distance: all but the furthest 5% of the surface lies within this distance of the "
        "other surface. It shows stray pieces that Dice hardly notices. Where only one of the two holds the class, "
        "it is the diagonal of the image.",
    ),
    Measure(
        metric="volume_error_ml",
        title="Volume error (ml)",
        better="lower is better",
        decimals=2,
        meaning="Difference between the predicted and the true volume, without its sign.",
    ),
    Measure(
        metric="volume_error_percent",
        title="Volume error (%)",
        better="nearer 0 is better",
        decimals=1,
        meaning="Predicted minus true volume, in percent of the true one: negative where the prediction is too small, "
        "positive where it is too large. The mean shows a bias; errors of both signs cancel in it.",
    ),
)


def measures_in(names: Iterable[str]) -> list[Measure]:
    """The measures among ``names`` in reading order; a metric not known here comes last under its own name."""
    present = set(names)
    known = [measure for measure in MEASURES if measure.metric in present]
    others = sorted(present - {measure.metric for measure in MEASURES})
    return known + [Measure(name, name, "", 3, "") for name in others]
