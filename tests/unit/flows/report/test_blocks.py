"""Blocks refuse what cannot be drawn; small pictures are enlarged pixel by pixel."""

from __future__ import annotations

import re

import pytest

from flows.report.blocks import Cell, Figure, Picture, PictureRow, Section, Table
from flows.report.html import render
from tests.support.pages import Page, png


def test_blocks_refuse_what_cannot_be_drawn() -> None:
    with pytest.raises(ValueError, match="must start with"):
        Cell("x", href="javascript:alert(1)")
    with pytest.raises(ValueError, match="must have 2 cells"):
        Table(["a", "b"], [["only one"]])
    with pytest.raises(ValueError, match="2 strings or none"):
        Table(["a", "b"], [], column_notes=["one"])
    with pytest.raises(ValueError, match="either png or svg"):
        Figure()
    with pytest.raises(ValueError, match="bytes of a PNG"):
        Figure(png=b"GIF89a")
    with pytest.raises(ValueError, match="bytes of a PNG"):
        Picture(b"GIF89a", "")


@pytest.mark.parametrize(
    ("sizes", "width", "enlarged"),
    [
        ([32], 96, [True]),
        ([28], 112, [True]),
        ([64], 128, [True]),
        ([96], 96, [False]),
        ([256], 256, [False]),
        ([1024], 256, [False]),
        ([32, 256], 256, [False, False]),
    ],
)
def test_small_pictures_are_enlarged_pixel_by_pixel(sizes: list[int], width: int, enlarged: list[bool]) -> None:
    row = PictureRow("", [Picture(png(size, size), "") for size in sizes])
    page = Page(html := render("t", "", [Section("s", "", [row])]))
    assert row.width == width
    assert f"--width: {width}px" in html
    assert ("width: 12.5%" in html) == (len(sizes) > 1), "one scale for all"
    assert [attributes.get("class") == "enlarged" for tag, attributes in page.tags if tag == "img"] == enlarged
    assert re.search(r"\.enlarged \{ image-rendering: pixelated; \}", html)
