"""Colours that people with any colour vision tell apart (Okabe & Ito, Color Universal Design, 2008)."""

from __future__ import annotations

CLASS_COLOURS = (
    (230, 159, 0),  # orange
    (86, 180, 233),  # sky blue
    (0, 158, 115),  # bluish green
    (240, 228, 66),  # yellow
    (213, 94, 0),  # vermilion
    (204, 121, 167),  # reddish purple
    (0, 114, 178),  # blue
)
SERIES_COLOURS = ("#0072b2", "#c8560b", "#00805d", "#b0588f", "#8a6d00", "#4b5563")
"""For lines on white, darkened where needed; the page has lighter ones for dark mode under ``--series-1`` and on."""


def class_colour(label: int) -> tuple[int, int, int]:
    """Red, green, blue (0-255) of a label value from 1 on. After 7 classes paler shades follow, then darker ones.

    Raises:
        ValueError: ``label`` is below 1: background has no colour.
    """
    if label < 1:
        raise ValueError(f"only label values from 1 on have a colour, got {label}")
    shade, index = divmod(label - 1, len(CLASS_COLOURS))
    towards, weight = ((0, 0.0), (255, 0.5), (0, 0.45))[shade % 3]
    red, green, blue = (round(level + (towards - level) * weight) for level in CLASS_COLOURS[index])
    return red, green, blue


def hex_colour(colour: tuple[int, int, int]) -> str:
    """``#rrggbb``."""
    return "#{:02x}{:02x}{:02x}".format(*colour)


def series_colour(index: int) -> str:
    """CSS colour of the ``index``-th line of a chart: the page's variable, with a fallback outside a page."""
    index %= len(SERIES_COLOURS)
    return f"var(--series-{index + 1},{SERIES_COLOURS[index]})"
