"""Line charts: values become heights, gaps stay gaps, long series are condensed, labels do not overlap."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flows.report.charts import class_legend, condense, line_chart, spread
from tests.support.pages import SVG, parse_svg, svg_lines, svg_texts


def test_a_higher_value_is_drawn_higher_and_later_steps_further_right() -> None:
    (line,) = svg_lines(line_chart({"loss": [(0, 0.0), (10, 5.0), (20, 10.0)]}, title="t"))
    assert line[0][0] < line[1][0] < line[2][0]
    assert line[0][1] > line[1][1] > line[2][1]
    assert line[0][1] - line[1][1] == pytest.approx(line[1][1] - line[2][1], abs=0.2)


def test_equal_ratios_are_equal_distances_on_a_logarithmic_axis() -> None:
    (line,) = svg_lines(line_chart({"loss": [(0, 1.0), (1, 0.1), (2, 0.01)]}, title="t", log_y=True))
    assert line[1][1] - line[0][1] == pytest.approx(line[2][1] - line[1][1], abs=0.2)
    assert line[2][1] > line[0][1]


def test_missing_values_leave_a_gap() -> None:
    points = [(0, 1.0), (1, 2.0), (2, math.nan), (3, 3.0), (4, 4.0), (5, math.inf)]
    assert [len(line) for line in svg_lines(line_chart({"a": points}, title="t"))] == [2, 2]
    assert [len(line) for line in svg_lines(line_chart({"a": [(0, 1), (1, 2), (2, -1)]}, title="t", log_y=True))] == [2]


def test_a_chart_without_values_says_so() -> None:
    assert "No values were recorded." in svg_texts(line_chart({"a": [(0, math.nan)]}, title="t"))


def test_series_are_named_in_the_legend_and_at_their_ends() -> None:
    svg = line_chart({"training": [(0, 1.0), (1, 0.25)], "validation": [(0, 1.0), (1, 0.5)]}, title="Loss")
    assert {"Loss", "training", "validation", "training 0.250", "validation 0.500", "step"} <= set(svg_texts(svg))
    dashes = {
        path.attrib["style"].split("stroke-dasharray:")[1].split(";")[0] for path in parse_svg(svg).iter(SVG + "path")
    }
    assert len(dashes) == 2


def test_long_series_keep_their_mean_and_their_extremes() -> None:
    points = [(step, float(step % 2)) for step in range(1000)]
    condensed = condense(points)
    assert len(condensed) == 100
    assert all((mean, low, high) == (0.5, 0.0, 1.0) for _, mean, low, high in condensed)
    assert [x for x, *_ in condensed[:2]] == [4.5, 14.5]
    assert condense(points[:3]) == [(0, 0.0, 0.0, 0.0), (1, 1.0, 1.0, 1.0), (2, 0.0, 0.0, 0.0)]


@given(st.lists(st.floats(0, 300), min_size=1, max_size=8))
@settings(max_examples=60)
def test_labels_never_overlap_nor_leave_the_chart(positions: list[float]) -> None:
    assert spread([0, 290, 295, 299], 15, 0, 300) == [0, 270, 285, 300]
    moved = spread(sorted(positions), 15, 0, 300)
    assert all(b - a >= 15 - 1e-6 for a, b in pairwise(moved))
    assert moved[0] >= 0
    assert moved[-1] <= 300


def test_legend_of_classes_wraps_and_names_every_class() -> None:
    names = [f"class {number}" for number in range(30)]
    svg = class_legend([(name, "#112233") for name in names], width=300)
    assert svg_texts(svg) == names
    patches = list(parse_svg(svg).iter(SVG + "rect"))
    assert len({patch.attrib["y"] for patch in patches}) > 1
    assert all(float(patch.attrib["x"]) < 300 for patch in patches)
