"""Points over two axes as SVG, the best compromises among them joined: a Pareto front."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from flows.report import svg
from flows.report.axes import nice_ticks
from flows.report.palette import series_colour

RADIUS = 3.6


@dataclass(frozen=True, slots=True)
class Point:
    """One point; what the pointer shows is its name."""

    name: str
    x: float
    """Cost: lower is better."""
    y: float
    """Value: higher is better."""
    is_marked: bool = False
    """True where its name is written beside it."""


def pareto_front(points: Sequence[Point]) -> list[Point]:
    """Return the points that no other is better than in one value and at least equal in the other, by ascending x."""
    front: list[Point] = []
    for point in sorted(points, key=lambda each: (each.x, -each.y)):
        if not front or point.y > front[-1].y:
            front.append(point)
    return front


def pareto_chart(
    points: Sequence[Point], *, title: str, x_label: str, y_label: str, width: int = 720, height: int = 360
) -> Markup:
    """Draw points and their Pareto front.

    Args:
        points: At least none; marked ones are named.
        title: What screen readers say.
        x_label: The cost, with its unit; lower is better.
        y_label: The value; higher is better.
        width, height: Size in CSS pixels.
    """
    if not points:
        return svg.document(title, width, 30, svg.text(0, 18, "No values were recorded.", size=12))
    x_ticks = nice_ticks(0.0, max(point.x for point in points))
    y_ticks = nice_ticks(min(point.y for point in points), max(point.y for point in points))
    plot = svg.Plot(56, 30, width - 20, height - 44, x_ticks, y_ticks)
    body = svg.text(0, 14, y_label, size=12, colour=svg.INK) + svg.draw_y_axis(plot) + svg.draw_x_axis(plot, x_label)
    front = pareto_front(points)
    if len(front) > 1:
        line = svg.path([(plot.x(point.x), plot.y(point.y)) for point in front])
        style = f"stroke:{series_colour(0)};stroke-width:1.6;stroke-dasharray:4 3"
        body += Markup('<path d="{}" fill="none" style="{}"/>').format(line, style)
    for point in sorted(points, key=lambda each: each.is_marked):
        body += _dot(plot, point, in_front=point in front)
    return svg.document(title, width, height, body)


def _dot(plot: svg.Plot, point: Point, *, in_front: bool) -> Markup:
    x, y = plot.x(point.x), plot.y(point.y)
    colour = series_colour(1) if point.is_marked else series_colour(0)
    opacity = "1" if in_front or point.is_marked else ".35"
    mark = Markup('<circle cx="{}" cy="{}" r="{}" style="fill:{};fill-opacity:{}"><title>{}</title></circle>').format(
        svg.pixels(x), svg.pixels(y), RADIUS, colour, opacity, point.name
    )
    if point.is_marked:
        mark += svg.text(x + 8, y + 4, point.name, size=11.5, colour=colour, bold=True)
    return mark
