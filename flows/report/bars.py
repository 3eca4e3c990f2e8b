"""Stacked bars as SVG: how a whole is made up of its parts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from markupsafe import Markup

from flows.report import svg
from flows.report.axes import number_text
from flows.report.palette import class_colour, hex_colour

BAR_HEIGHT = 26.0
ROW_HEIGHT = 54.0
MIN_LABEL = 6.0
"""Room at either side of a number within its part, in CSS pixels; a part without room has none."""


def part_colours(names: Sequence[str]) -> dict[str, str]:
    """Return a colour for each part, as ``#rrggbb``."""
    return {name: hex_colour(class_colour(index)) for index, name in enumerate(names, start=1)}


def stacked_bars(
    rows: Mapping[str, Mapping[str, float]], colours: Mapping[str, str], *, label: str, unit: str, width: int = 900
) -> Markup:
    """Draw one bar per row, all on one scale; each part shows its value where there is room, and always on pointing.

    Args:
        rows: Title of a bar to its parts, name to value; what is not positive is left out.
        colours: Name of a part to ``#rrggbb``.
        label: What the bars show, for screen readers.
        unit: Unit of the values.
        width: Width in CSS pixels.
    """
    longest = max((sum(parts.values()) for parts in rows.values()), default=0) or 1.0
    body = Markup("")
    for index, (title, parts) in enumerate(rows.items()):
        top = ROW_HEIGHT * index
        body += svg.text(0, top + 13, title, size=13, colour=svg.INK, bold=True)
        x = 0.0
        for name, value in parts.items():
            if value > 0:
                extent = value / longest * width
                body += _part((x, top + 19, extent), name, value, colours[name], unit)
                x += extent
    return svg.document(label, width, ROW_HEIGHT * len(rows), body)


def _part(place: tuple[float, float, float], name: str, value: float, colour: str, unit: str) -> Markup:
    x, y, extent = place
    number = f"{number_text(value)} {unit}"
    mark = Markup(
        '<rect x="{}" y="{}" width="{}" height="{}" style="fill:{};fill-opacity:.5;stroke:{}"><title>{}</title></rect>'
    ).format(*map(svg.pixels, (x, y, extent, BAR_HEIGHT)), colour, colour, f"{name}: {number}")
    if svg.text_width(number) + 2 * MIN_LABEL > extent:
        return mark
    return mark + svg.text(x + extent / 2, y + 17, number, anchor="middle", colour=svg.INK)
