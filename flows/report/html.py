"""Sections in, one HTML page out. The page fetches nothing and says so to the browser (Content-Security-Policy)."""

from __future__ import annotations

import base64
import hashlib
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from markupsafe import Markup, escape

from flows.report.blocks import Cell, CellLike, Figure, Section, Table, as_cell


def render(title: str, subtitle: str, sections: Sequence[Section]) -> str:
    """Write a report as one HTML document.

    Every text is escaped; only SVG made by ``charts`` and ``strip`` passes as it is. The same input gives the same
    bytes.

    Args:
        title: Heading of the page and of the browser's tab.
        subtitle: One line under it: what was evaluated, on what.
        sections: What the page holds, in order.
    """
    anchors = unique_anchors([section.title for section in sections], prefix="section-")
    entries = [(anchors[section.title], section) for section in sections]
    return _template().render(title=title, subtitle=subtitle, entries=entries)


def unique_anchors(names: Sequence[str], prefix: str = "") -> dict[str, str]:
    """A name for a link to each of ``names``: letters, digits, dot and hyphen only, no two alike.

    Raises:
        ValueError: Two names are equal.
    """
    anchors: dict[str, str] = {}
    taken: set[str] = set()
    for name in names:
        if name in anchors:
            raise ValueError(f"names that are linked to must differ, got {name!r} twice")
        stem = prefix + (re.sub(r"[^A-Za-z0-9._]+", "-", name).strip("-").lower() or "x")
        anchor, count = stem, 1
        while anchor in taken:
            count += 1
            anchor = f"{stem}-{count}"
        taken.add(anchor)
        anchors[name] = anchor
    return anchors


@dataclass(frozen=True, slots=True)
class _Column:
    title: str
    note: str
    numeric: bool


def _columns(table: Table) -> list[_Column]:
    """Titles with their notes, and which columns are set flush right."""
    notes = table.column_notes or [""] * len(table.columns)
    numeric = [any(as_cell(row[i]).number is not None for row in table.rows) for i in range(len(table.columns))]
    return [_Column(*column) for column in zip(table.columns, notes, numeric, strict=True)]


def _cells(row: Sequence[CellLike]) -> list[Cell]:
    return [as_cell(value) for value in row]


def _sort_value(cell: Cell) -> str:
    """Return the key by which the script sorts a numeric cell; empty for NaN, which goes last either way."""
    if cell.number is None or math.isnan(cell.number):
        return ""
    return repr(cell.number).replace("inf", "Infinity")  # as JavaScript spells it


def _breakable(text: str) -> Markup:
    """The text with places to break a long path after its slashes; what is copied stays the same."""
    return escape(text).replace("/", "/" + Markup("<wbr>"))


def _data_uri(figure: Figure) -> str:
    assert figure.png is not None
    return "data:image/png;base64," + base64.b64encode(figure.png).decode("ascii")


def _script_hash(script: str) -> str:
    """The digest by which the page's policy admits its one script and no other."""
    return base64.b64encode(hashlib.sha256(str(script).encode()).digest()).decode("ascii")


@cache
def _template() -> Template:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    for function in (_columns, _cells, _sort_value, _breakable, _data_uri, _script_hash):
        environment.filters[function.__name__.removeprefix("_")] = function
    return environment.get_template("report.html.j2")
