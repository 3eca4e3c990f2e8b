from __future__ import annotations

from flows.report.scatter import Point, pareto_chart, pareto_front
from tests.support.pages import SVG, parse_svg, svg_texts


def test_the_front_holds_the_points_that_none_beats() -> None:
    cheap, good, best = Point("cheap", 1, 0.5), Point("good", 2, 0.8), Point("best", 5, 0.9)
    beaten = [Point("dearer", 3, 0.8), Point("worse", 1, 0.4), Point("both", 6, 0.1)]
    assert pareto_front([best, *beaten, good, cheap]) == [cheap, good, best]
    assert pareto_front([]) == []


def test_points_are_named_and_joined() -> None:
    points = [Point("a <b>", 1, 0.5), Point("chosen", 2, 0.8, is_marked=True), Point("c", 3, 0.6)]
    svg = pareto_chart(points, title="Dice over time", x_label="ms", y_label="Dice")
    assert sorted(title.text or "" for title in parse_svg(svg).iter(SVG + "title")) == ["a <b>", "c", "chosen"]
    assert {"ms", "Dice", "chosen"} <= set(svg_texts(svg))
    assert "a <b>" not in svg_texts(svg)
    assert len([path for path in parse_svg(svg).iter(SVG + "path") if "4 3" in path.attrib.get("style", "")]) == 1


def test_nothing_to_draw_says_so() -> None:
    assert "No values were recorded." in svg_texts(pareto_chart([], title="t", x_label="x", y_label="y"))
