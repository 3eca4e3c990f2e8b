"""Sections that reports share: training curves, input left out or changed, configuration and lineage."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from data_pipelines.errors import Problem
from data_pipelines.notices import Notice, count_notices
from flows.report.axes import number_text
from flows.report.bars import part_colours, stacked_bars
from flows.report.blocks import (
    Block,
    Cell,
    CellLike,
    Details,
    Figure,
    FigureRow,
    KeyValue,
    KeyValues,
    Section,
    Table,
    Text,
)
from flows.report.charts import class_legend
from flows.report.curves import Curves, curve_figures


def quarantine_items(problems: Sequence[Problem]) -> list[KeyValue]:
    """Return the headline's count of quarantined input; nothing where there is none."""
    if not problems:
        return []
    count = len({problem.case_id or problem.path for problem in problems})  # problems of a list share its path
    return [KeyValue("Set aside", f"{count:,}", "cases or files, listed below")]


def training_section(stages: Mapping[str, Curves], examples: str = "cases", remark: str = "") -> Section:
    """Draw the training curves, one row of charts per stage.

    Args:
        stages: Heading of the row (empty for none) to its curves; a stage without curves is left out.
        examples: What the model learns from, in the plural.
        remark: One more sentence on how to read these curves.
    """
    rows = [FigureRow(curve_figures(curves), title) for title, curves in stages.items() if curves]
    if not rows:
        return Section("Training", "No curves were recorded.", [])
    intro = (
        "Values over the optimizer steps. The loss should fall and level off; validation that turns worse while the "
        f"training loss still falls means the model is learning its training {examples} by heart. Where values are "
        "many, the line is their mean over neighbouring steps and the pale band their range."
    )
    return Section("Training", f"{intro} {remark}".rstrip(), rows)


def time_section(stages: Mapping[str, Mapping[str, float]], useful: str) -> Section:
    """Draw what the wall time of each training was spent on.

    Args:
        stages: Title of a training (empty where there is one alone) to its parts, name to seconds.
        useful: Name of the part whose share is the goodput.
    """
    names = [name for name in next(iter(stages.values()), {}) if any(parts[name] > 0 for parts in stages.values())]
    colours = part_colours(names)
    bars: dict[str, dict[str, float]] = {}
    rows: list[list[CellLike]] = []
    for title, parts in stages.items():
        wall = sum(parts.values()) or 1.0
        goodput = f"goodput {100 * parts[useful] / wall:.0f} % of {number_text(wall)} s"
        bars[f"{title}: {goodput}" if title else goodput.capitalize()] = {name: parts[name] for name in names}
        shares = [Cell(f"{parts[name]:,.1f} s", f"{100 * parts[name] / wall:.1f} %", parts[name]) for name in names]
        rows.append([title or "Training", *shares])
    blocks: list[Block] = [
        Figure(svg=stacked_bars(bars, colours, label="Wall time of the trainings by its parts", unit="s")),
        Figure(svg=class_legend(list(colours.items()), about="Colours of the parts")),
        Table(["Training", *(name.capitalize() for name in names)], rows),
    ]
    intro = (
        f"Wall time of all attempts, from the start of the workers to their end. Goodput is the share of {useful}; "
        "steps that had to be repeated after a failure do not count. Uploads run beside the steps and count as such."
    )
    return Section("Time", intro, blocks)


def quarantine_section(problems: Sequence[Problem]) -> Section:
    """List input files that break a rule, and what to do about each."""
    if not problems:
        return Section("Input set aside", "None. Every input file passed every check.", [])
    table = Table(
        columns=["File", "Rule", "What was found", "What to do"],
        rows=[[Cell(p.path, note=p.case_id), p.rule, p.message, p.remedy] for p in problems],
    )
    intro = "These files break a rule and were left out of training and evaluation."
    return Section("Input set aside", intro, [table])


def images_sections(
    left_out: Mapping[str, int], changes: Mapping[str, int], buckets: Mapping[str, int]
) -> list[Section]:
    """Show what became of images before training: the sizes of several buckets, those left out, those changed.

    Sections without entries have no blocks.
    """
    shown = buckets if len(buckets) > 1 else {}
    parts = {
        "Buckets": (
            "Images of every size that training saw, width first. A bucket of fewer images than a batch repeats them "
            "within it; a larger data.bucket_multiple makes fewer buckets.",
            "Pixels",
            list(shown.items()),
        ),
        "Images left out": (
            "Images that can be read but were taken out before training: by a filter, or as the equal of another one.",
            "Reason",
            sorted(left_out.items(), key=lambda entry: -entry[1]),
        ),
        "Images changed": (
            "What was converted, cut or chosen in images and captions, besides their size.",
            "Images",
            sorted(changes.items(), key=lambda entry: -entry[1]),
        ),
    }
    return [
        Section(title, intro, [Table([column, "Images"], rows)] if rows else [])
        for title, (intro, column, rows) in parts.items()
    ]


def notices_section(notices: Sequence[Notice]) -> Section:
    """List what was assumed or converted in input that is used all the same, and files that were skipped."""
    rows: list[list[CellLike]] = [[Cell(one.path, note=one.case_id), one.rule, one.message] for one in notices]
    table = Table(columns=["File", "Notice", "What was found, and what was made of it"], rows=rows)
    counts = ", ".join(f"{name} {count}" for name, count in count_notices(notices).items())
    return Section("Input taken with an assumption", f"These files are used as the table says. {counts}.", [table])


def configuration_section(config: Mapping[str, Any]) -> Section:
    """Show the resolved configuration as YAML that loads back."""
    plain = json.loads(json.dumps(config, default=str))  # tuples and paths have no place in plain YAML
    text = yaml.safe_dump(plain, sort_keys=False, allow_unicode=True, width=110)
    intro = "Every setting of the run, defaults included."
    return Section("Configuration", intro, [Details("Resolved configuration (YAML)", text)])


def lineage_section(lineage: Mapping[str, str]) -> Section:
    """Show stage keys, digests and versions by name."""
    items = [KeyValue(name, value) for name, value in lineage.items()]
    intro = "What this result was made from. A stage with the same key has the same input, settings and output."
    return Section("Lineage", intro, [KeyValues(items, style="code") if items else Text("Not recorded.")])
