"""HTML reports as a browser sees them, SVG charts as elements, and small pictures to put into them."""

from __future__ import annotations

import io
from html.parser import HTMLParser
from xml.etree import ElementTree

import numpy as np
from PIL import Image

ATTACK = "<script>alert('x')</script>\"&"
"""A text that runs a script wherever it is not escaped."""
SVG = "{http://www.w3.org/2000/svg}"
VOID = {"meta", "link", "img", "wbr", "br"}


class Page(HTMLParser):
    """A parsed page: balanced tags, attributes, and the text of each section by its id."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.sections: dict[str, str] = {}
        self.scripts: list[str] = []
        self.policy = ""
        self._section = ""
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = dict(attrs)
        self.tags.append((tag, attributes))
        if tag == "section":
            self._section = attributes["id"] or ""
            self.sections[self._section] = ""
        if attributes.get("http-equiv") == "Content-Security-Policy":
            self.policy = attributes["content"] or ""
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag
        if tag == "section":
            self._section = ""

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "script":
            self.scripts.append(data)
        if self._section:
            self.sections[self._section] += data

    def values(self, attribute: str) -> list[str]:
        """Return the attribute's value of every tag that has it."""
        return [attrs[attribute] or "" for _, attrs in self.tags if attribute in attrs]


def assert_runs_no_foreign_script(html: str) -> None:
    """Assert that the page has its own script and no other, neither as an element nor as an event handler."""
    page = Page(html)
    assert html.count("<script>") == 1
    assert len(page.scripts) == 1
    assert "alert(" not in page.scripts[0]
    assert not any(name.startswith("on") for _, attributes in page.tags for name in attributes)


def png(width: int = 3, height: int = 2) -> bytes:
    """Build a PNG file of one colour."""
    buffer = io.BytesIO()
    Image.new("RGB", (width, height), (1, 2, 3)).save(buffer, format="PNG")
    return buffer.getvalue()


def read_pixels(png_bytes: bytes) -> np.ndarray:
    """Decode a PNG file: (H, W, 3) integers."""
    return np.asarray(Image.open(io.BytesIO(png_bytes)).convert("RGB")).astype(int)


def parse_svg(svg: str) -> ElementTree.Element:
    """Parse a chart."""
    return ElementTree.fromstring(svg)


def svg_texts(svg: str) -> list[str]:
    """Return the texts of a chart, in order."""
    return [element.text or "" for element in parse_svg(svg).iter(SVG + "text")]


def svg_lines(svg: str) -> list[list[list[float]]]:
    """Return the points (x, y) of every line that a chart draws without filling it."""
    return [_path_points(path) for path in parse_svg(svg).iter(SVG + "path") if path.get("fill") == "none"]


def _path_points(element: ElementTree.Element) -> list[list[float]]:
    return [[float(x) for x in point.split()] for point in element.attrib["d"].lstrip("M").rstrip("Z").split("L")]
