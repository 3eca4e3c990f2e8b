"""Stacked bars: parts in proportion, one scale, numbers where there is room."""

from __future__ import annotations

import pytest

from flows.report.bars import part_colours, stacked_bars
from tests.support.pages import SVG, parse_svg, svg_texts

COLOURS = part_colours(["steps", "start", "data"])


def widths(rows: dict[str, dict[str, float]]) -> list[float]:
    drawn = parse_svg(stacked_bars(rows, COLOURS, label="Time", unit="s", width=900))
    return [float(rect.attrib["width"]) for rect in drawn.iter(SVG + "rect")]


def test_parts_have_their_share_of_the_longest_bar() -> None:
    assert widths({"a": {"steps": 60, "start": 30}, "b": {"steps": 45}}) == pytest.approx([600, 300, 450])


def test_parts_lie_side_by_side() -> None:
    drawn = parse_svg(stacked_bars({"a": {"steps": 60, "start": 30}}, COLOURS, label="Time", unit="s", width=900))
    assert [float(rect.attrib["x"]) for rect in drawn.iter(SVG + "rect")] == pytest.approx([0, 600])


def test_a_part_that_is_nothing_is_left_out() -> None:
    assert len(widths({"a": {"steps": 60, "start": 0}})) == 1
    assert widths({"a": {"steps": 0}}) == []


def test_numbers_are_written_where_there_is_room() -> None:
    texts = svg_texts(stacked_bars({"a": {"steps": 899, "start": 1}}, COLOURS, label="Time", unit="s", width=900))
    assert "899 s" in texts
    assert "1 s" not in texts


def test_every_part_has_a_colour_of_its_own() -> None:
    assert len(set(part_colours([str(number) for number in range(8)]).values())) == 8
