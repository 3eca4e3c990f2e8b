"""Reports that stand alone: one HTML file, pictures and charts inside it, nothing fetched from anywhere.

blocks.py      what a report is made of: sections of tables, figures, key values, text, details
html.py        sections to one HTML page, drawn by report.html.j2
axes.py        ticks and numbers as people write them
values.py      metric values as text and table cells
palette.py     colours that people with any colour vision can tell apart
svg.py         the few SVG elements that charts are drawn with
bars.py        parts of a whole as stacked bars, as SVG
charts.py      several series over the training step, as SVG
curves.py      training curves to charts, one per quantity
reliability.py probabilities against frequencies, as SVG
scatter.py     points over two axes and their Pareto front, as SVG
strip.py       one dot per case, as SVG
planes.py      which slices of a volume are shown, their orientation and grey levels
overlays.py    three planes of a volume with truth and prediction, as PNG
heat.py        three planes of a volume under a map of weights, as PNG
pictures.py    images as PNG, alone and side by side
sections.py    sections that reports share: curves, input left out or changed, configuration, lineage
"""
