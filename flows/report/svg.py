"""The few SVG elements that charts are drawn with. Every text is escaped; colours follow the page's variables."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from flows.report.axes import tick_texts

INK = "currentColor"
QUIET = "var(--quiet,#5b6570)"
RULE = "var(--rule,#dfe3e8)"
CHARACTER_WIDTH = 0.6
"""Mean width of a character in units of the font size, in a wide font: there is no font to ask."""
BOLD = 1.1
"""Width of bold characters relative to regular ones."""


@dataclass(frozen=True, slots=True)
class Plot:
    """The rectangle that is drawn into, in CSS pixels; the outer ticks stand at its edges."""

    left: float
    top: float
    right: float
    bottom: float
    x_ticks: Sequence[float]
    y_ticks: Sequence[float]
    log_y: bool = False

    def x(self, value: float) -> float:
        """Pixels from the left of the drawing."""
        low, high = self.x_ticks[0], self.x_ticks[-1]
        return self.left + (value - low) / (high - low) * (self.right - self.left)

    def y(self, value: float) -> float:
        """Pixels from the top of the drawing."""
        low, high = self.y_ticks[0], self.y_ticks[-1]
        if self.log_y:
            low, high, value = math.log10(low), math.log10(high), math.log10(value)
        return self.bottom - (value - low) / (high - low) * (self.bottom - self.top)


def document(label: str, width: float, height: float, body: Markup, role: str = "img") -> Markup:
    """The whole drawing; ``label`` is what screen readers say. A drawing with links takes the role ``group``."""
    return Markup(
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {w} {h}" width="{w}" height="{h}" role="{role}" '
        'aria-label="{label}" font-family="system-ui, sans-serif" overflow="visible">{body}</svg>'
    ).format(w=pixels(width), h=pixels(height), label=label, role=role, body=body)


def text(
    x: float,
    y: float,
    content: str,
    *,
    size: float = 11,
    anchor: str = "start",
    colour: str = QUIET,
    bold: bool = False,
) -> Markup:
    """One line of text whose baseline is at ``y``."""
    weight = Markup(' font-weight="600"') if bold else ""
    return Markup('<text x="{}" y="{}" font-size="{}" text-anchor="{}" style="fill:{}"{}>{}</text>').format(
        pixels(x), pixels(y), pixels(size), anchor, colour, weight, content
    )


def line(
    x1: float, y1: float, x2: float, y2: float, *, colour: str = RULE, width: float = 1, dash: str = "none"
) -> Markup:
    """A straight line."""
    return Markup('<path d="{}" style="stroke:{};stroke-width:{};stroke-dasharray:{}"/>').format(
        path([(x1, y1), (x2, y2)]), colour, pixels(width), dash
    )


def text_width(content: str, size: float = 11, bold: bool = False) -> float:
    """Estimate the maximum width of a text, in CSS pixels."""
    return CHARACTER_WIDTH * size * len(content) * (BOLD if bold else 1)


def draw_y_axis(plot: Plot) -> Markup:
    """Horizontal rules at the ticks, with their numbers on the left."""
    marks = Markup("")
    for tick, label in zip(plot.y_ticks, tick_texts(plot.y_ticks), strict=True):
        y = plot.y(tick)
        marks += line(plot.left, y, plot.right, y) + text(plot.left - 7, y + 4, label, anchor="end")
    return marks


def draw_x_axis(plot: Plot, label: str, rules: bool = False) -> Markup:
    """The axis with its ticks, their numbers and its label below; ``rules`` draws vertical rules at the ticks."""
    marks = line(plot.left, plot.bottom, plot.right, plot.bottom, colour=QUIET)
    for tick, number in zip(plot.x_ticks, tick_texts(plot.x_ticks), strict=True):
        x = plot.x(tick)
        if rules:
            marks += line(x, plot.top, x, plot.bottom)
        marks += line(x, plot.bottom, x, plot.bottom + 4, colour=QUIET)
        marks += text(x, plot.bottom + 17, number, anchor="middle")
    return marks + text((plot.left + plot.right) / 2, plot.bottom + 34, label, anchor="middle")


def path(points: Sequence[tuple[float, float]]) -> str:
    """The points joined by straight lines, as a path's ``d``."""
    return "M" + "L".join(f"{pixels(x)} {pixels(y)}" for x, y in points)


def pixels(value: float) -> str:
    """A length in tenths of a pixel."""
    return f"{value:.1f}".removesuffix(".0")
