"""Report of an ablation, and the same as a text table."""

from __future__ import annotations

import math
from collections.abc import Sequence

from flows.ablation.summary import SHARE, VariantSummary
from flows.config.pipeline import PipelineConfig
from flows.metrics import METRICS, Metric, parse_metric_name
from flows.report.axes import number_text
from flows.report.blocks import Cell, CellLike, Figure, Section, Table
from flows.report.charts import line_chart
from flows.report.html import render
from flows.report.sections import configuration_section
from flows.report.values import interval_text, value_text
from flows.stages.pipeline import Ablation, Estimate


def ablation_page(config: PipelineConfig, ablation: Ablation, summaries: Sequence[VariantSummary]) -> str:
    """Write the report as HTML."""
    quality = parse_metric_name(ablation.quality).metric
    curves = Figure(
        svg=line_chart({each.name: each.curve for each in summaries}, title=f"Validation {quality.title}", width=720)
    )
    sections = [
        Section("Comparison", _intro(config, summaries), [_table(summaries)]),
        Section("Validation", "Mean over the seeds at each validation.", [curves]),
        configuration_section(config.model_dump(mode="json")),
    ]
    return render(f"{config.registry.name}: ablation of {ablation.name}", ablation.about, sections)


def ablation_text(summaries: Sequence[VariantSummary]) -> str:
    """Write the comparison as a text table."""
    metrics = _metrics(summaries)
    rows = [["variant", *(f"{metric.name} (95 %)" for metric in metrics), "steps"]]
    for each in summaries:
        values = [_text(metric, each.estimates[metric.name]) for metric in metrics]
        rows.append([each.name, *values, _steps_text(each.steps)])
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)


def _intro(config: PipelineConfig, summaries: Sequence[VariantSummary]) -> str:
    reference = summaries[0]
    num_steps = config.train.num_steps  # type: ignore[attr-defined]  # ablations are of pipelines that train
    return (
        f"{reference.num_seeds} seed{'s' if reference.num_seeds > 1 else ''} of each variant, trained for "
        f"{num_steps:,} steps. Under each mean its 95 % interval. Steps: until validation, "
        f"averaged over the seeds, first had {SHARE:.0%} of what “{reference.name}” ends with."
    )


def _table(summaries: Sequence[VariantSummary]) -> Table:
    metrics = _metrics(summaries)
    rows: list[list[CellLike]] = []
    for each in summaries:
        values = [each.estimates[metric.name] for metric in metrics]
        cells = [
            Cell(value_text(metric, value.mean), interval_text(metric, value.low, value.high), value.mean)
            for metric, value in zip(metrics, values, strict=True)
        ]
        rows.append([each.name, *cells, Cell(_steps_text(each.steps), number=each.steps)])
    notes = ["", *(metric.direction for metric in metrics), "lower is better"]
    return Table(["Variant", *(metric.titled for metric in metrics), "Steps"], rows, column_notes=notes)


def _metrics(summaries: Sequence[VariantSummary]) -> list[Metric]:
    """Return the metrics that every variant has an estimate of."""
    return [METRICS[name] for name in summaries[0].estimates if all(name in each.estimates for each in summaries)]


def _text(metric: Metric, value: Estimate) -> str:
    interval = interval_text(metric, value.low, value.high)
    return value_text(metric, value.mean) + (f" ({interval})" if interval else "")


def _steps_text(steps: float) -> str:
    return "never" if math.isinf(steps) else number_text(round(steps))
