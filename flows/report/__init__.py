"""Reports that stand alone: one HTML file, pictures and charts inside it, nothing fetched from anywhere.

blocks.py        what a report is made of: sections of tables, figures, key values, text, details
html.py          sections -> one HTML page, drawn by report.html.j2
axes.py          ticks and numbers as people write them
palette.py       colours that people with any colour vision tell apart
svg.py           the few SVG elements that charts are drawn with
charts.py        several series over the training step, as SVG
curves.py        training curves -> charts, one per quantity
strip.py         one dot per case, as SVG
overlays.py      three planes of a volume with truth and prediction, as PNG
measures.py      how each segmentation metric is named, written and read
readings.py      how each metric of generated images is named and read
cases.py         scores and pictures of cases, and where links to them lead
common.py        sections that every report has: curves, quarantined input, configuration, lineage
segmentation.py  the report of a segmentation run
diffusion.py     the report of a latent-diffusion run
"""

from __future__ import annotations

from flows.report.blocks import Block, Cell, Details, Figure, FigureRow, KeyValue, KeyValues, Section, Table, Text
from flows.report.html import render

__all__ = [
    "Block",
    "Cell",
    "Details",
    "Figure",
    "FigureRow",
    "KeyValue",
    "KeyValues",
    "Section",
    "Table",
    "Text",
    "render",
]
