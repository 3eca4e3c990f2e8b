"""The page: one HTML file that fetches nothing, escapes everything, and shows what it was given."""

from __future__ import annotations

import base64
import hashlib
import math
import re

import pytest

from flows.report.blocks import Cell, Details, Figure, FigureRow, KeyValue, KeyValues, Section, Table, Text
from flows.report.charts import class_legend, line_chart
from flows.report.html import render, unique_anchors
from flows.report.strip import Dot, strip_chart
from tests.support.pages import ATTACK, Page, assert_runs_no_foreign_script, png


def every_block(text: str) -> list[Section]:
    """Build a section with every kind of block, ``text`` wherever a text may be."""
    svg = line_chart({text: [(0, 1.0)], text + "2": [(0, 2.0)]}, title=text, x_label=text)
    strip = strip_chart({text: [Dot(text, 0.5, "#" + text)]}, x_label=text)
    rows = [[Cell(text, text, href="#" + text, anchor="a" + text), 1], [text, math.nan]]
    blocks = [
        Table([text, "n"], rows, text, [text, text]),
        Figure(png=png(), caption=text, alt=text),
        Figure(svg=svg, caption=text),
        FigureRow([Figure(png=png(), caption=text), Figure(svg=strip)], text, text, "r" + text),
        Figure(svg=class_legend([(text, "#112233")])),
        KeyValues([KeyValue(text, text, text)], style="headline"),
        Text(text),
        Details(text, text),
    ]
    return [Section(text, text, blocks)]


def test_every_text_is_escaped() -> None:
    html = render(ATTACK, ATTACK, every_block(ATTACK))
    assert_runs_no_foreign_script(html)
    assert html.count("alert(") > 20


def test_svg_from_elsewhere_is_shown_as_text() -> None:
    section = Section("s", "", [Figure(svg="<svg onload=alert(1)></svg>")])  # type: ignore[arg-type]
    assert "svg" not in [tag for tag, _ in Page(render("t", "", [section])).tags]


def test_the_page_fetches_nothing_and_tells_the_browser_so() -> None:
    html = render("t", "s", every_block("text"))
    page = Page(html)
    assert all(source.startswith("data:image/png;base64,") for source in page.values("src"))
    assert all(href.startswith("#") or href == "data:," for href in page.values("href"))
    assert not re.search(r"@import|url\(|//[a-z]+\.[a-z]", html.replace("http://www.w3.org/2000/svg", ""))
    digest = base64.b64encode(hashlib.sha256(page.scripts[0].encode()).digest()).decode()
    assert page.policy == (
        f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    )


def test_pictures_are_inside_the_page_unchanged() -> None:
    picture = png(30, 20)
    section = Section("s", "", [FigureRow([Figure(png=picture)]), Figure(png=picture, alt="what it shows")])
    images = [attributes for tag, attributes in Page(render("t", "", [section])).tags if tag == "img"]
    for image in images:
        assert base64.b64decode((image["src"] or "").split(",")[1]) == picture
        assert (image["width"], image["height"]) == ("30", "20")
    assert images[1]["alt"] == "what it shows"


def test_the_page_is_drawn_for_light_dark_and_print() -> None:
    html = render("t", "", [])
    assert "prefers-color-scheme: dark" in html
    assert "@media print" in html


def test_tables_sort_by_numbers_and_call_nan_absent() -> None:
    rows = [["a", 0.5], ["b", math.nan], ["c", Cell("1.0", number=1)]]
    page = Page(render("t", "", [Section("s", "", [Table(["case", "dice"], rows)])]))
    assert page.values("data-v") == ["0.5", "", "1"]
    assert "absent" in page.sections["section-s"]


def test_infinite_numbers_are_spelled_as_the_script_reads_them() -> None:
    rows = [["a", math.inf], ["b", -math.inf]]
    page = Page(render("t", "", [Section("s", "", [Table(["case", "psnr"], rows)])]))
    assert page.values("data-v") == ["Infinity", "-Infinity"]


def test_same_input_same_bytes() -> None:
    assert render("t", "s", every_block("x")) == render("t", "s", every_block("x"))


def test_sections_are_linked_and_ids_unique() -> None:
    page = Page(render("t", "", [Section("Ä b", "", []), Section("Ä/b", "", []), Section("x", "", [])]))
    assert list(page.sections) == ["section-b", "section-b-2", "section-x"]
    assert [href for href in page.values("href") if href != "data:,"] == ["#" + name for name in page.sections]
    with pytest.raises(ValueError, match="'a' twice"):
        unique_anchors(["a", "a"])
