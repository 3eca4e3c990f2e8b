"""One dot per case and a box per class, as SVG: how the scores are spread, and which cases are the low ones."""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from flows.report import svg
from flows.report.axes import nice_ticks, number_text
from flows.report.palette import series_colour

RADIUS, SMALL_RADIUS = 3.2, 2.0
MANY_DOTS = 150
"""A row with more dots than this has small ones."""
ROW_HEIGHT = 70.0
SWARM_HEIGHT = 38.0
BOX_HEIGHT = 46.0
TOP = 6.0


@dataclass(frozen=True, slots=True)
class Dot:
    """One case's value; a click on it leads to ``href``."""

    name: str
    value: float
    href: str = ""


def strip_chart(rows: Mapping[str, Sequence[Dot]], *, x_label: str, width: int = 900) -> Markup:
    """Draw one row per class: a dot for each case, a box over the middle half of them, a line at the median.

    The lowest case of each row is named. Dots whose value is not finite are left out.

    Args:
        rows: Name of the row to its cases.
        x_label: What is measured and its range.
        width: Width in CSS pixels.
    """
    finite = {name: sorted(_finite(dots), key=lambda dot: (dot.value, dot.name)) for name, dots in rows.items()}
    values = [dot.value for dots in finite.values() for dot in dots]
    if not values:
        return svg.document(x_label, width, 30, svg.text(0, 18, "No values were recorded.", size=12))
    bottom = TOP + ROW_HEIGHT * len(rows)
    left = 20 + min(240.0, max(svg.text_width(name, 13, bold=True) for name in rows))
    x_ticks = nice_ticks(min(values), max(values), target=6)
    plot = svg.Plot(left, TOP, width - 20, bottom, x_ticks, (0.0, 1.0))
    body = svg.draw_x_axis(plot, x_label, rules=True)
    for index, (name, dots) in enumerate(finite.items()):
        body += _draw_row(plot, TOP + ROW_HEIGHT * (index + 0.5), name, dots)
    return svg.document(x_label, width, bottom + 42, body, role="group")


def quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    """Lower quartile, median and upper quartile, interpolated between the values (numpy's default)."""
    if len(values) == 1:
        return values[0], values[0], values[0]
    lower, median, upper = statistics.quantiles(values, n=4, method="inclusive")
    return lower, median, upper


def swarm(positions: Sequence[float], diameter: float, height: float) -> list[float]:
    """Offsets from the centre line that keep dots with nearly equal positions apart: 0, +1, -1, +2, … diameters.

    Where a column is full (``height``), its next dots start again at the centre.
    """
    columns: dict[int, int] = defaultdict(int)
    slots = max(1, int(height / diameter))
    offsets = []
    for position in positions:
        column = math.floor(position / diameter)
        slot = columns[column] % slots
        columns[column] += 1
        offsets.append(diameter * ((slot + 1) // 2) * (1 if slot % 2 else -1))
    return offsets


def _finite(dots: Sequence[Dot]) -> list[Dot]:
    return [dot for dot in dots if math.isfinite(dot.value)]


def _draw_row(plot: svg.Plot, centre: float, name: str, dots: Sequence[Dot]) -> Markup:
    marks = svg.text(0, centre - 1, name, size=13, colour=svg.INK, bold=True)
    if not dots:
        return marks + svg.text(0, centre + 15, "in no case", size=11.5)
    lower, median, upper = quartiles([dot.value for dot in dots])
    marks += svg.text(0, centre + 15, f"median {number_text(median, 3)}", size=11.5)
    box = plot.x(lower), centre - BOX_HEIGHT / 2, max(plot.x(upper) - plot.x(lower), 1), BOX_HEIGHT
    marks += _draw_box(box, f"fill:{svg.RULE}")
    radius = RADIUS if len(dots) <= MANY_DOTS else SMALL_RADIUS
    offsets = swarm([plot.x(dot.value) for dot in dots], 2 * radius, SWARM_HEIGHT)
    for dot, offset in reversed(list(zip(dots, offsets, strict=True))):
        lowest = dot is dots[0]
        colour = series_colour(1 if lowest else 0)
        marks += _draw_dot(plot.x(dot.value), centre + offset, dot, RADIUS + 1 if lowest else radius, colour)
    x = plot.x(median)
    marks += _draw_box(box, f"fill:none;stroke:{svg.QUIET};pointer-events:none")
    marks += svg.line(x, centre - BOX_HEIGHT / 2, x, centre + BOX_HEIGHT / 2, colour=svg.INK, width=2)
    return marks + _name_lowest(plot, centre, dots[0])


def _draw_box(box: tuple[float, float, float, float], style: str) -> Markup:
    return Markup('<rect x="{}" y="{}" width="{}" height="{}" rx="2" style="{}"/>').format(*map(svg.pixels, box), style)


def _draw_dot(x: float, y: float, dot: Dot, radius: float, colour: str) -> Markup:
    mark = Markup('<circle cx="{}" cy="{}" r="{}" style="fill:{};fill-opacity:.75"><title>{}</title></circle>').format(
        svg.pixels(x), svg.pixels(y), svg.pixels(radius), colour, f"{dot.name}: {number_text(dot.value, 3)}"
    )
    return Markup('<a href="{}">{}</a>').format(dot.href, mark) if dot.href else mark


def _name_lowest(plot: svg.Plot, centre: float, dot: Dot) -> Markup:
    """The lowest case's name under its dot, kept inside the drawing."""
    x, half = plot.x(dot.value), svg.text_width(dot.name, 11.5) / 2
    x = min(max(x, plot.left + half), plot.right - half)
    label = svg.text(x, centre + 19, dot.name, size=11.5, anchor="middle", colour=series_colour(1))
    return Markup('<a href="{}">{}</a>').format(dot.href, label) if dot.href else label
