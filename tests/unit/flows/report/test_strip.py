"""Strip charts: one dot per case, each linked, the lowest named."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flows.report.strip import Dot, quartiles, strip_chart, swarm
from tests.support.pages import SVG, parse_svg, svg_texts


def test_strip_chart_links_every_case_and_names_the_lowest() -> None:
    dots = [Dot("a", 0.9, "#case-a"), Dot("b", 0.2, "#case-b"), Dot("c", math.nan, "#case-c"), Dot("d", 0.8, "#case-d")]
    svg = strip_chart({"left": dots, "right": []}, x_label="Dice")
    circles = list(parse_svg(svg).iter(SVG + "circle"))
    titles = sorted(title.text or "" for title in parse_svg(svg).iter(SVG + "title"))
    assert titles == ["a: 0.900", "b: 0.200", "d: 0.800"]
    assert [circle.attrib["r"] for circle in circles] == ["3.2", "3.2", "4.2"]  # the lowest is larger, and on top
    assert {"left", "right", "median 0.800", "in no case", "b"} <= set(svg_texts(svg))
    links = sorted(a.attrib["href"] for a in parse_svg(svg).iter(SVG + "a"))
    assert links == ["#case-a", "#case-b", "#case-b", "#case-d"]


@given(st.lists(st.floats(0, 1), min_size=1, max_size=40))
@settings(max_examples=60)
def test_quartiles_equal_numpy(values: list[float]) -> None:
    assert quartiles(values) == pytest.approx(tuple(np.percentile(values, (25, 50, 75))))


def test_swarm_keeps_equal_values_apart() -> None:
    assert swarm([5.0, 5.1, 5.2, 40.0], diameter=6, height=36) == pytest.approx([0, 6, -6, 0], abs=1e-9)
