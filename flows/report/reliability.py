"""Reliability diagrams as SVG: how often a class is there where it is predicted with a probability."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from flows.report import svg
from flows.report.axes import number_text
from flows.report.palette import series_colour

TICKS = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
DASHES = ("4 3", "none")


@dataclass(frozen=True, slots=True)
class Bin:
    """Predictions of about one probability."""

    predicted: float
    """Mean probability; NaN for an empty bin, which is left out."""
    observed: float
    """Share of them that are right."""
    share: float
    """Share of all predictions that they are."""


def reliability_chart(
    series: Mapping[str, Sequence[Bin]], *, title: str, width: int = 320, height: int = 330
) -> Markup:
    """Draw the bins of each series, by name, about the diagonal, on which probabilities are frequencies.

    Points show on pointing what share of the predictions they stand for. ``width`` and ``height`` are CSS pixels.
    """
    plot = svg.Plot(44, 58, width - 12, height - 42, TICKS, TICKS)
    body = svg.text(0, 15, title, size=13.5, colour=svg.INK, bold=True)
    body += svg.draw_y_axis(plot) + svg.draw_x_axis(plot, "probability")
    body += svg.line(plot.x(0), plot.y(0), plot.x(1), plot.y(1), colour=svg.QUIET)
    x = 0.0
    for index, (name, bins) in enumerate(series.items()):
        colour, dash = series_colour(index), DASHES[index % len(DASHES)]
        body += svg.line(x, 34, x + 22, 34, colour=colour, width=2, dash=dash)
        body += svg.text(x + 28, 38, name, size=11.5, colour=svg.INK)
        x += 46 + svg.text_width(name, 11.5)
        body += _points(plot, name, [each for each in bins if math.isfinite(each.predicted)], (colour, dash))
    return svg.document(title, width, height, body)


def _points(plot: svg.Plot, name: str, bins: Sequence[Bin], style: tuple[str, str]) -> Markup:
    colour, dash = style
    places = [(plot.x(each.predicted), plot.y(each.observed)) for each in bins]
    drawn = f"stroke:{colour};stroke-width:1.6;stroke-dasharray:{dash}"
    marks = Markup('<path d="{}" fill="none" style="{}"/>').format(svg.path(places), drawn) if places else Markup("")
    for (x, y), each in zip(places, bins, strict=True):
        said = (
            f"{name}: probability {each.predicted:.3f}, there in {each.observed:.3f}, {number_text(each.share)} of all"
        )
        marks += Markup('<circle cx="{}" cy="{}" r="3.2" style="fill:{}"><title>{}</title></circle>').format(
            svg.pixels(x), svg.pixels(y), colour, said
        )
    return marks
