"""Curves over the training step, as small SVG line charts."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import groupby, pairwise

from markupsafe import Markup

from flows.report import svg
from flows.report.axes import log_ticks, nice_ticks, number_text, tick_texts
from flows.report.palette import series_colour

Point = tuple[float, float]

MAX_POINTS = 200
NUM_STRETCHES = 100
"""A series of more points than ``MAX_POINTS`` is drawn as mean and range over this many stretches."""
SHORT_NAME = 12
DASHES = ("none", "6 3", "2 3", "9 3 2 3", "12 4")
"""Lines differ in dash as well as in colour, for print in grey; 6 colours and 5 dashes make 30 lines all different."""
LINE_HEIGHT = 15.0


def line_chart(
    series: Mapping[str, Sequence[Point]],
    *,
    title: str,
    x_label: str = "step",
    log_y: bool = False,
    width: int = 480,
    height: int = 270,
) -> Markup:
    """Draw several series over one axis, each labelled with the value it ends at; several get a legend too.

    Args:
        series: Name to points (x, y). Values that are not finite, and on a logarithmic axis those that are not
            positive, leave a gap. A series of more than 200 points is drawn as its mean over neighbouring
            points, on a pale band from the lowest to the highest of them.
        title: What is measured, with its unit.
        x_label: What the horizontal axis counts.
        log_y: Logarithmic vertical axis.
        width, height: Size in CSS pixels; a legend of several rows adds to the height.
    """
    drawable = {name: _drawable(points, log_y) for name, points in series.items()}
    heading = svg.text(0, 15, title, size=13.5, colour=svg.INK, bold=True)
    if not any(math.isfinite(y) for points in drawable.values() for _, y in points):
        return svg.document(title, width, 52, heading + svg.text(0, 40, "No values were recorded.", size=12))
    places = _legend_places(list(series), width) if len(series) > 1 else []
    labels = _end_labels(drawable)
    num_legend_rows = places[-1][1] + 1 if places else 0
    height += round(LINE_HEIGHT) * max(0, num_legend_rows - 1)
    top = 32 + LINE_HEIGHT * (num_legend_rows + 0.4 if places else 0)
    plot = _plot(drawable, labels, (top, width, height), log_y)
    body = heading + _legend(list(series), places) + svg.draw_y_axis(plot) + svg.draw_x_axis(plot, x_label)
    return svg.document(title, width, height, body + _lines(plot, drawable) + _draw_end_labels(plot, drawable, labels))


def class_legend(entries: Sequence[tuple[str, str]], width: int = 720, about: str = "Colours of the classes") -> Markup:
    """Colour patches with names, wrapped to ``width`` CSS pixels; entries are (name, ``#rrggbb``)."""
    marks = Markup("")
    places = _legend_places([name for name, _ in entries], width, size=13)
    for (name, colour), (x, row) in zip(entries, places, strict=True):
        y = 3 + 22 * row
        marks += Markup(
            '<rect x="{}" y="{}" width="12" height="12" rx="2" '
            'style="fill:{};fill-opacity:.5;stroke:{};stroke-width:2"/>'
        ).format(svg.pixels(x + 1), svg.pixels(y), colour, colour)
        marks += svg.text(x + 20, y + 11, name, size=13, colour=svg.INK)
    label = f"{about}: " + ", ".join(name for name, _ in entries)
    extent = max(
        (x + 22 + svg.text_width(name, 13) for (name, _), (x, _) in zip(entries, places, strict=True)), default=0
    )
    return svg.document(label, extent, 22 * (places[-1][1] + 1 if places else 0), marks)


def condense(points: Sequence[Point]) -> list[tuple[float, float, float, float]]:
    """Equal stretches of a series as (mean x, mean y, lowest y, highest y); single points where they are few."""
    if len(points) <= MAX_POINTS:
        return [(x, y, y, y) for x, y in points]
    bounds = [index * len(points) // NUM_STRETCHES for index in range(NUM_STRETCHES + 1)]
    condensed = []
    for start, stop in pairwise(bounds):
        xs, ys = zip(*points[start:stop], strict=True)
        condensed.append((math.fsum(xs) / len(xs), math.fsum(ys) / len(ys), min(ys), max(ys)))
    return condensed


def spread(positions: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Move ascending positions apart until ``gap`` lies between neighbours, within ``low`` to ``high`` if they fit."""
    moved: list[float] = []
    for position in positions:
        moved.append(max(position, moved[-1] + gap if moved else low))
    ceiling = high
    for index in reversed(range(len(moved))):
        moved[index] = min(moved[index], ceiling)
        ceiling = moved[index] - gap
    return moved


def _drawable(points: Sequence[Point], log_y: bool) -> list[Point]:
    """Points in order of x, with NaN for every value that has no place on the axis."""
    ordered = sorted(((x, y) for x, y in points if math.isfinite(x)), key=lambda point: point[0])
    return [(x, y if math.isfinite(y) and (y > 0 or not log_y) else math.nan) for x, y in ordered]


def _finite(points: Sequence[Point]) -> list[Point]:
    return [point for point in points if math.isfinite(point[1])]


def _plot(
    series: Mapping[str, Sequence[Point]], labels: Mapping[str, str], size: tuple[float, int, int], log_y: bool
) -> svg.Plot:
    """Ticks that enclose every value, and room for their numbers and for the labels at the lines' ends."""
    top, width, height = size
    xs, ys = zip(*(point for points in series.values() for point in _finite(points)), strict=True)
    y_ticks = log_ticks(min(ys), max(ys)) if log_y else nice_ticks(min(ys), max(ys))
    x_ticks = nice_ticks(min(xs), max(xs), target=4, whole=all(float(x).is_integer() for x in xs))
    left = 12 + max(svg.text_width(text) for text in tick_texts(y_ticks))
    right = width - 14 - max(svg.text_width(label, 11.5, bold=True) for label in labels.values())
    return svg.Plot(left, top, right, height - 40, x_ticks, y_ticks, log_y)


def _lines(plot: svg.Plot, series: Mapping[str, Sequence[Point]]) -> Markup:
    marks = Markup("")
    for index, points in enumerate(series.values()):
        for finite, group in groupby(points, key=lambda point: math.isfinite(point[1])):
            if finite:
                marks += _segment(plot, list(group), index)
    return marks


def _segment(plot: svg.Plot, points: Sequence[Point], index: int) -> Markup:
    """One unbroken stretch of a series: its band where it was condensed, and its line (a dot for a single point)."""
    colour, dash = series_colour(index), DASHES[index % len(DASHES)]
    stretches = condense(points)
    centre = [(plot.x(x), plot.y(mean)) for x, mean, _, _ in stretches]
    if len(centre) == 1:
        return Markup('<circle cx="{}" cy="{}" r="3" style="fill:{}"/>').format(*map(svg.pixels, centre[0]), colour)
    marks = Markup("")
    if len(stretches) < len(points):
        edge = [(plot.x(x), plot.y(low)) for x, _, low, _ in stretches]
        edge += [(plot.x(x), plot.y(high)) for x, _, _, high in reversed(stretches)]
        marks += Markup('<path d="{}Z" style="fill:{};fill-opacity:.18"/>').format(svg.path(edge), colour)
    style = f"stroke:{colour};stroke-width:1.8;stroke-dasharray:{dash};stroke-linejoin:round"
    return marks + Markup('<path d="{}" fill="none" style="{}"/>').format(svg.path(centre), style)


def _end_labels(series: Mapping[str, Sequence[Point]]) -> dict[str, str]:
    """Return the label of each line's end: its last value; its name too, where there are several and all are short."""
    named = len(series) > 1 and max(map(len, series)) <= SHORT_NAME
    labels = {}
    for name, points in series.items():
        if finite := _finite(points):
            value = number_text(condense(finite)[-1][1])
            labels[name] = f"{name} {value}" if named else value
    return labels


def _draw_end_labels(plot: svg.Plot, series: Mapping[str, Sequence[Point]], labels: Mapping[str, str]) -> Markup:
    """Labels at the height of the lines' ends, moved apart where the ends are close."""
    ends = sorted(
        (plot.y(condense(_finite(points))[-1][1]), index, name)
        for index, (name, points) in enumerate(series.items())
        if name in labels
    )
    heights = spread([y for y, _, _ in ends], LINE_HEIGHT, plot.top - 4, plot.bottom)
    marks = Markup("")
    for height, (_, index, name) in zip(heights, ends, strict=True):
        marks += svg.text(plot.right + 8, height + 4, labels[name], size=11.5, colour=series_colour(index), bold=True)
    return marks


def _legend(names: Sequence[str], places: Sequence[tuple[float, int]]) -> Markup:
    marks = Markup("")
    for index, (x, row) in enumerate(places):
        y, dash = 35 + LINE_HEIGHT * row, DASHES[index % len(DASHES)]
        marks += svg.line(x, y, x + 22, y, colour=series_colour(index), width=2, dash=dash)
        marks += svg.text(x + 28, y + 4, names[index], size=11.5, colour=svg.INK)
    return marks


def _legend_places(names: Sequence[str], width: float, size: float = 11.5) -> list[tuple[float, int]]:
    """Return the start of each legend entry: x, and the row it is in."""
    places: list[tuple[float, int]] = []
    x, row = 0.0, 0
    for name in names:
        extent = 28 + svg.text_width(name, size)
        if x and x + extent > width:
            x, row = 0.0, row + 1
        places.append((x, row))
        x += extent + 18
    return places
