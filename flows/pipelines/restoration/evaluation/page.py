"""The page of a restoration report: the score beside the baseline's, images before and after, then every image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from data_pipelines.errors import Problem
from flows.metrics import METRICS
from flows.pipelines.restoration.evaluation.scoring import ImageRow
from flows.report.blocks import Cell, CellLike, Figure, KeyValue, KeyValues, PictureRow, Section, Table
from flows.report.curves import Curves
from flows.report.html import render, unique_anchors
from flows.report.sections import (
    configuration_section,
    images_sections,
    lineage_section,
    quarantine_items,
    quarantine_section,
    training_section,
)
from flows.report.strip import Dot, strip_chart
from flows.report.values import interval_text, value_cell, value_text
from flows.training.goodput import TimeSplit
from flows.training.initial import Initialisation
from flows.training.initial_report import initial_section
from flows.training.time_report import times_section
from unet_models.metrics.summary import MetricSummary

MAX_ROWS = 1000
"""Images that the table lists; ``images.parquet`` holds them all."""


@dataclass(frozen=True, slots=True)
class RestorationPage:
    """Contents of a restoration report."""

    title: str
    """Heading, such as the model's name."""
    task: str
    """Name of the task in words."""
    metric: str
    """Name of the metric that says most."""
    summaries: Sequence[MetricSummary]
    rows: Sequence[ImageRow]
    """Scores of every image."""
    curves: Curves
    remark: str
    """Caution about the scores; empty where there is none."""
    pictures: Sequence[PictureRow]
    """Strips of input, restored and true image."""
    problems: Sequence[Problem]
    """Input that was quarantined before training."""
    left_out: Mapping[str, int]
    """Filter, or ``duplicate``, to the number of images that it left out."""
    changes: Mapping[str, int]
    """End of the sentence "Images ..." to the number of images that were changed so."""
    config: Mapping[str, Any]
    """The resolved configuration as JSON."""
    lineage: Mapping[str, str]
    """Stage keys, digests, commit, model, by name."""
    times: TimeSplit | None = None
    """Wall time of the training by part."""
    init: Initialisation | None = None
    """Weights that the training started from; None: random ones."""


def restoration_page(page: RestorationPage) -> str:
    """Write the report as one HTML document."""
    sections = [
        _headline(page),
        _scores(page),
        _distribution(page),
        Section(
            "Images before and after",
            "Each row is one held-out image: as the model gets it, as restored without a network (the baseline), as "
            "the model restores it, and as it is.",
            page.pictures,
        ),
        training_section({"": page.curves}, "images"),
        *([initial_section({"": page.init})] if page.init else []),
        *([times_section({"": page.times})] if page.times else []),
        _per_image(page),
        *images_sections(page.left_out, page.changes, {}),
        quarantine_section(page.problems),
        configuration_section(page.config),
        lineage_section(page.lineage),
    ]
    subtitle = f"{page.task}, evaluated on {len(page.rows):,} image{'' if len(page.rows) == 1 else 's'}"
    shown = [section for section in sections if section.blocks or section.title == "Input set aside"]
    return render(page.title, subtitle, shown)


def baseline_of(metric: str) -> str:
    """Return the name of a metric of the baseline: ``psnr/baseline_hole`` for ``psnr/hole``."""
    name, _, part = metric.partition("/")
    return f"{name}/baseline_{part}" if part else f"{name}/baseline"


def _headline(page: RestorationPage) -> Section:
    means = {summary.metric: summary for summary in page.summaries}
    metric, score = METRICS[page.metric], means[page.metric]
    baseline = means[baseline_of(page.metric)]
    items = [
        KeyValue(
            metric.titled,
            value_text(metric, score.mean),
            f"95% interval {interval_text(metric, score.low, score.high)}",
        ),
        KeyValue("Baseline", value_text(metric, baseline.mean), "without a network"),
        KeyValue("Better by", value_text(metric, score.mean - baseline.mean), metric.unit),
        *quarantine_items(page.problems),
    ]
    intro = f"{metric.meaning} The interval says how far the mean would move, 19 times out of 20, had other images "
    intro += "of the same kind been drawn (bootstrap)."
    return Section("Result", f"{intro} {page.remark}".rstrip(), [KeyValues(items, style="headline")])


def _scores(page: RestorationPage) -> Section:
    rows: list[list[CellLike]] = []
    for summary in page.summaries:
        metric = METRICS[summary.metric]
        value = value_cell(metric, summary.mean, interval_text(metric, summary.low, summary.high))
        rows.append([Cell(metric.titled, note=summary.metric), value, metric.direction, metric.meaning])
    table = Table(["Metric", "Mean", "Direction", "How to read it"], rows)
    return Section("Scores", "Mean over the held-out images; under it the 95% bootstrap interval.", [table])


def _distribution(page: RestorationPage) -> Section:
    anchors = _anchors(page)
    charts = {
        title: [Dot(row["case_id"], row[name], _link(anchors, row["case_id"])) for row in page.rows if name in row]
        for title, name in (("Model", page.metric), ("Baseline", baseline_of(page.metric)))
    }
    intro = (
        "Each dot is one image; further right is better. The grey box holds the middle half of the images, the line in "
        "it is the median. Click on a dot to see its numbers."
    )
    return Section("Spread over the images", intro, [Figure(svg=strip_chart(charts, x_label=_title(page.metric)))])


def _per_image(page: RestorationPage) -> Section:
    anchors = _anchors(page)
    metrics = [METRICS[summary.metric] for summary in page.summaries]
    rows: list[list[CellLike]] = [
        [
            Cell(row["case_id"], anchor=anchors[row["case_id"]]),
            *(value_cell(m, row.get(m.name, float("nan"))) for m in metrics),
        ]
        for row in _listed(page)
    ]
    table = Table(["Image", *(metric.titled for metric in metrics)], rows, sortable=True)
    intro = "The image with the lowest score comes first. Click on a column's title to sort by it."
    if len(page.rows) > MAX_ROWS:
        intro += f" The first {MAX_ROWS:,} of {len(page.rows):,}; images.parquet holds all."
    return Section("Every image", intro, [table])


def _listed(page: RestorationPage) -> list[ImageRow]:
    """Return the rows of the table, lowest score first."""
    return sorted(page.rows, key=lambda row: row.get(page.metric, float("inf")))[:MAX_ROWS]


def _anchors(page: RestorationPage) -> dict[str, str]:
    """Name the places of the images that the table lists."""
    return unique_anchors([row["case_id"] for row in _listed(page)], prefix="image-")


def _link(anchors: Mapping[str, str], case_id: str) -> str:
    """Return the link to an image's row; empty where the table does not list it."""
    return f"#{anchors[case_id]}" if case_id in anchors else ""


def _title(metric: str) -> str:
    return f"{METRICS[metric].titled} of an image"
