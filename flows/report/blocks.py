"""Building blocks of a report. A pipeline composes them; ``html.render`` draws them."""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from markupsafe import Markup

from flows.report.axes import number_text

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
LINK_STARTS = ("#", "https://", "http://")
MIN_PICTURE_WIDTH, MAX_PICTURE_WIDTH = 96, 256
"""Minimum and maximum width of the pictures of a ``PictureRow``, in CSS pixels."""


@dataclass(frozen=True, slots=True)
class Cell:
    """One table cell. Plain strings and numbers may be given instead; this is for links, anchors and notes."""

    text: str
    note: str = ""
    """Small second line, such as an interval."""
    number: float | None = None
    """Sort key within the column; a cell with a number is set flush right."""
    href: str = ""
    """Target of the link: an anchor of this report (``#…``) or a web address."""
    anchor: str = ""
    """Name by which other links reach this row; unique in the report."""

    def __post_init__(self) -> None:
        if self.href and not self.href.startswith(LINK_STARTS):
            raise ValueError(f"a link must start with one of {', '.join(LINK_STARTS)}, got {self.href!r}")


CellLike = Cell | str | int | float | None


def as_cell(value: CellLike) -> Cell:
    """A cell from a plain value: numbers are written out and sortable, NaN and None become "absent"."""
    if isinstance(value, Cell):
        return value
    if isinstance(value, str):
        return Cell(value)
    return Cell(number_text(value), number=float("nan") if value is None else float(value))


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of cells under column titles; a column is numeric where one of its cells is a number."""

    kind: ClassVar[str] = "table"
    columns: Sequence[str]
    rows: Sequence[Sequence[CellLike]]
    caption: str = ""
    column_notes: Sequence[str] = ()
    """One small line under each column title, or none at all."""
    sortable: bool = False
    """True where a click on a column title sorts; the table is complete without scripts too."""

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.columns):
                raise ValueError(f"a row must have {len(self.columns)} cells like the columns, got {len(row)}")
        if self.column_notes and len(self.column_notes) != len(self.columns):
            raise ValueError(f"column_notes must be {len(self.columns)} strings or none, got {len(self.column_notes)}")


@dataclass(frozen=True, slots=True)
class Figure:
    """A picture (PNG bytes) or a chart (SVG markup made by ``charts`` or ``strip``) with a caption.

    SVG given as a plain string is untrusted: it is escaped and shows as text.
    """

    kind: ClassVar[str] = "figure"
    png: bytes | None = None
    svg: Markup | None = None
    caption: str = ""
    alt: str = ""
    """Alternative text; the caption where empty."""

    def __post_init__(self) -> None:
        if (self.png is None) == (self.svg is None):
            raise ValueError("a figure takes either png or svg")
        if self.png is not None:
            _check_png(self.png)

    @property
    def size(self) -> tuple[int, int] | None:
        """Width and height of the PNG in pixels, read from its header; None for a chart."""
        return _png_size(self.png) if self.png is not None else None


@dataclass(frozen=True, slots=True)
class FigureRow:
    """Figures side by side. PNGs keep their common scale: they shrink together."""

    kind: ClassVar[str] = "figure_row"
    figures: Sequence[Figure]
    title: str = ""
    caption: str = ""
    anchor: str = ""


@dataclass(frozen=True, slots=True)
class Picture:
    """One image of a set that is looked at side by side, such as a generated sample (PNG bytes)."""

    png: bytes
    caption: str
    note: str = ""
    """Small second line, such as what was found in the picture or a distance."""

    def __post_init__(self) -> None:
        _check_png(self.png)

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels, read from the PNG's header."""
        return _png_size(self.png)


@dataclass(frozen=True, slots=True)
class PictureRow:
    """Pictures of one scale under a title; small ones are enlarged without smoothing, pixel by pixel."""

    kind: ClassVar[str] = "picture_row"
    title: str
    pictures: Sequence[Picture]

    @property
    def width(self) -> int:
        """Width of the widest picture on the page, in CSS pixels: a multiple of its own width, if that is small."""
        return min(self.widest * math.ceil(MIN_PICTURE_WIDTH / self.widest), MAX_PICTURE_WIDTH)

    @property
    def widest(self) -> int:
        """In pixels of its own."""
        return max((picture.size[0] for picture in self.pictures), default=MIN_PICTURE_WIDTH)

    def alt(self, index: int) -> str:
        """Return the alternative text of the picture at ``index``: the row's title and its own caption."""
        picture = self.pictures[index]
        caption = picture.caption or f"picture {index + 1} of {len(self.pictures)}"
        return ", ".join(filter(None, dict.fromkeys([self.title, caption, picture.note])))


@dataclass(frozen=True, slots=True)
class KeyValue:
    """One named value with an optional remark."""

    key: str
    value: str
    note: str = ""


@dataclass(frozen=True, slots=True)
class KeyValues:
    """Named values: ``headline`` sets them large, ``code`` in a fixed-width face (digests, addresses)."""

    kind: ClassVar[str] = "key_values"
    items: Sequence[KeyValue]
    style: Literal["plain", "headline", "code"] = "plain"


@dataclass(frozen=True, slots=True)
class Text:
    """One paragraph."""

    kind: ClassVar[str] = "text"
    text: str


@dataclass(frozen=True, slots=True)
class Details:
    """Preformatted text that opens on a click; printed open."""

    kind: ClassVar[str] = "details"
    summary: str
    preformatted: str


Block = Table | Figure | FigureRow | PictureRow | KeyValues | Text | Details


@dataclass(frozen=True, slots=True)
class Section:
    """A heading, a sentence or two on how to read what follows, and the blocks."""

    title: str
    intro: str
    blocks: Sequence[Block]


def _check_png(png: bytes) -> None:
    if not png.startswith(PNG_SIGNATURE):
        raise ValueError(f"png must be the bytes of a PNG file, got {png[:8]!r}…")


def _png_size(png: bytes) -> tuple[int, int]:
    width, height = struct.unpack(">II", png[16:24])
    return width, height
