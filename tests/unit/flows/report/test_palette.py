"""Colours of classes."""

from __future__ import annotations

import pytest

from flows.report.palette import CLASS_COLOURS, class_colour, hex_colour


def test_class_colours_differ_and_reach_beyond_seven_classes() -> None:
    colours = [class_colour(label) for label in range(1, 22)]
    assert tuple(colours[:7]) == CLASS_COLOURS
    assert len(set(colours)) == 21
    assert hex_colour(class_colour(1)) == "#e69f00"
    with pytest.raises(ValueError, match="from 1 on"):
        class_colour(0)
