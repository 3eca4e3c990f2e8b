"""Distances of several sets of images from the training images, side by side at equal N alone."""

from __future__ import annotations

from collections.abc import Mapping

from flows.metrics import FRECHET_METRICS, MetricName, parse_metric_name
from flows.report.axes import number_text
from flows.report.blocks import Block, Cell, CellLike, Table, Text

SETS = {
    "": "generated images",
    "generated": "generated images, as many of them",
    "prior": "decoded noise",
    "reconstruction": "held-out images through the autoencoder",
}
"""Part of a distance's name to the images that it is measured on, in the order of the table."""
EXPLANATION = (
    "Distances from the training images at equal N: a Fréchet distance falls with N, so it compares only within one "
    "table. KID does not depend on N on average. Decoded noise is what a model that learnt nothing would give, the "
    "autoencoder's images are the best that it allows."
)


def kid_beside(parsed: MetricName, metrics: Mapping[str, float]) -> float | None:
    """Find the KID of the same images as a Fréchet distance; None for another metric, or where it was not measured."""
    suffix = f"/{parsed.part}" if parsed.part else ""
    name = f"kid[{parsed.extractor or 'inception'},n={parsed.num_images}]{suffix}"
    return metrics.get(name) if parsed.metric.name in FRECHET_METRICS else None


def compared_names(metrics: Mapping[str, float]) -> set[str]:
    """Return the names of the distances that are measured to be compared: they belong into these tables alone."""
    parsed = {name: parse_metric_name(name) for name in metrics}
    kinds = (*FRECHET_METRICS, "kid")
    return {name for name, each in parsed.items() if each.metric.name in kinds and each.part and each.part in SETS}


def equal_n_tables(metrics: Mapping[str, float]) -> list[Block]:
    """Build a table of Fréchet distance and KID for each extractor and N at which sets were compared."""
    parsed = {name: parse_metric_name(name) for name in metrics}
    distances = {name: each for name, each in parsed.items() if each.metric.name in FRECHET_METRICS}
    compared = compared_names(metrics)
    groups = dict.fromkeys((each.metric.title, each.protocol) for name, each in distances.items() if name in compared)
    tables = [
        _table(title, protocol, {name: each for name, each in distances.items() if each.protocol == protocol}, metrics)
        for title, protocol in groups
    ]
    return [Text(EXPLANATION), *tables] if tables else []


def _table(title: str, protocol: str, distances: Mapping[str, MetricName], metrics: Mapping[str, float]) -> Table:
    """Build the table of one extractor and N, a row per set."""
    rows: list[list[CellLike]] = []
    for part, images in SETS.items():
        for name, parsed in distances.items():
            if parsed.part == part:
                kid = kid_beside(parsed, metrics)
                value = Cell(number_text(metrics[name]), note=name, number=metrics[name])
                rows.append([images, value, Cell(number_text(kid), number=kid)])
    return Table([f"Images ({protocol})", title, "KID"], rows)
