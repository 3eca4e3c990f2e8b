"""The report of a segmentation run: from the one number down to the single case, then what it was made from."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from data_pipelines.errors import Problem
from flows.report.blocks import Block, Cell, CellLike, Figure, FigureRow, KeyValue, KeyValues, Section, Table
from flows.pipelines.segmentation.evaluation.cases import MEAN, CaseRow, Cases, CaseView, Summary, number
from flows.report.charts import class_legend
from flows.report.common import configuration_section, lineage_section, quarantine_section, set_aside_items, training_section
from flows.report.html import render
from flows.report.measures import DICE, measures_in
from flows.report.palette import class_colour, hex_colour
from flows.report.strip import strip_chart

__all__ = ["CaseView", "Summary", "segmentation_report"]

ROLES = {"worst": "Worst case", "median": "Median case", "best": "Best case"}


def segmentation_report(
    title: str,
    summaries: Sequence[Summary],
    case_rows: Sequence[CaseRow],
    curves: Mapping[str, Sequence[tuple[int, float]]],
    views: Sequence[CaseView],
    problems: Sequence[Problem],
    config: Mapping[str, Any],
    lineage: Mapping[str, str],
    class_labels: Mapping[str, int] | None = None,
) -> str:
    """Write the report of a segmentation run as one HTML document.

    Args:
        title: Heading, such as the model's name.
        summaries: One per metric and class, and per metric one of class ``mean``.
        case_rows: One per case and class: case_id, class_name, dice, iou, hd95_mm, surface_dice, volume_error_ml,
            volume_error_percent; NaN where a class is absent.
        curves: Name to (step, value).
        views: Cases in pictures.
        problems: Input that was set aside before training.
        config: The resolved configuration.
        lineage: Stage keys, digests, commit, model, by name.
        class_labels: Class name to label value, which is what the pictures are coloured by; without it the classes
            have the values 1, 2, … in the order of ``summaries``.
    """
    cases = Cases.of(case_rows, views)
    classes = list(dict.fromkeys(s.class_name for s in summaries if s.class_name != MEAN))
    sections = [
        _headline(summaries, cases, problems),
        _scores(summaries, classes),
        _distribution(cases, classes),
        _pictures(views, cases, class_labels or {name: label for label, name in enumerate(classes, start=1)}),
        training_section({"": curves}),
        _per_case(cases),
        quarantine_section(problems),
        configuration_section(config),
        lineage_section(lineage),
    ]
    count = len(cases.rows)
    return render(title, f"Segmentation, evaluated on {count} case{'' if count == 1 else 's'}", sections)


def _headline(summaries: Sequence[Summary], cases: Cases, problems: Sequence[Problem]) -> Section:
    mean = next((s for s in summaries if (s.metric, s.class_name) == (DICE.metric, MEAN)), None)
    interval = DICE.interval(mean.low, mean.high) if mean is not None else ""
    items = [
        KeyValue(
            "Mean Dice", DICE.text(mean.mean if mean is not None else None), interval and f"95% interval {interval}"
        ),
        KeyValue("Cases", f"{len(cases.rows):,}", "evaluated"),
    ]
    if finite := [(value, case_id) for case_id, value in cases.dice.items() if math.isfinite(value)]:
        value, case_id = min(finite)
        items.append(KeyValue("Lowest case", DICE.text(value), case_id))
    items += set_aside_items(problems)
    intro = (
        "Dice says how well the predicted region covers the true one: 0 is no overlap, 1 is identical, higher is "
        "better. The mean is taken over the cases for each class, then over the classes. The interval says how far it "
        "would move, 19 times out of 20, had other cases of the same kind been drawn (bootstrap)."
    )
    return Section("Result", intro, [KeyValues(items, style="headline")])


def _scores(summaries: Sequence[Summary], classes: Sequence[str]) -> Section:
    measures = measures_in(s.metric for s in summaries)
    by_key = {(s.metric, s.class_name): s for s in summaries}
    rows = []
    for name in [*classes, MEAN] if summaries else []:
        summaries_of_class = [by_key.get((measure.metric, name)) for measure in measures]
        cells = [
            m.cell(s.mean, m.interval(s.low, s.high)) if s is not None else Cell("not computed", number=math.nan)
            for m, s in zip(measures, summaries_of_class, strict=True)
        ]
        counted = by_key.get((DICE.metric, name))
        label = "Mean of the classes" if name == MEAN else name
        rows.append([label, *cells, counted.num_cases if counted is not None else None])
    table = Table(
        columns=["Class", *(measure.title for measure in measures), "Cases"],
        column_notes=["", *(measure.better for measure in measures), "with the class"],
        rows=rows,
        caption="Mean over the cases; under it the 95% bootstrap interval.",
    )
    glossary = Table(
        columns=["Measure", "How to read it"],
        rows=[[Cell(measure.title, note=measure.better), measure.meaning] for measure in measures if measure.meaning],
    )
    intro = (
        "One row per class, each measure averaged over the cases. A case counts for a class unless the class is "
        "absent from both its truth and its prediction."
    )
    return Section("Scores per class", intro, [table, glossary])


def _distribution(cases: Cases, classes: Sequence[str]) -> Section:
    rows = {name: cases.dots(name) for name in classes}
    if len(classes) > 1:
        rows = {"Mean of the classes": cases.dots(MEAN)} | rows
    intro = (
        "Each dot is one case; further right is better. The grey box holds the middle half of the cases, the line in "
        "it is the median. Point at a dot to see which case it is, click on it to see its numbers. The lowest case of "
        "each row is named. The axis begins near the lowest value, which need not be 0."
    )
    return Section("Spread over the cases", intro, [Figure(svg=strip_chart(rows, x_label="Dice of a case"))])


def _pictures(views: Sequence[CaseView], cases: Cases, class_labels: Mapping[str, int]) -> Section:
    if not views:
        return Section("Cases in pictures", "No pictures were made.", [])
    legend = class_legend(
        [(name, hex_colour(class_colour(label))) for name, label in class_labels.items() if label > 0]
    )
    blocks: list[Block] = [Figure(svg=legend)]
    anchored: set[str] = set()
    for view in views:
        figures = [
            Figure(png=plane.png, caption=plane.name, alt=f"{view.case_id}, {plane.name}") for plane in view.planes
        ]
        scores = [f"{row['class_name']} {DICE.text(number(row['dice']))}" for row in cases.rows.get(view.case_id, [])]
        caption = ", ".join([f"Mean Dice {DICE.text(view.dice)}", *(scores if len(scores) > 1 else [])])
        # One case may be worst and best at once; a link has one target.
        anchor = "" if view.case_id in anchored else cases.picture_anchors[view.case_id]
        anchored.add(view.case_id)
        blocks.append(FigureRow(figures, f"{ROLES[view.role]}: {view.case_id}", caption, anchor))
    intro = (
        "The outline is the truth, the translucent colour is the prediction: where they agree, the colour fills the "
        "outline. Each plane goes through the slice with most of the truth in it. All planes of a case have the same "
        "scale in millimetres."
    )
    if any(len(view.planes) > 1 for view in views):
        intro += " In axial and coronal planes the patient's right is on the left; in sagittal ones anterior is."
    return Section("Cases in pictures", intro, blocks)


def _per_case(cases: Cases) -> Section:
    rows_of_cases = [row for rows in cases.rows.values() for row in rows]
    measures = measures_in({key for row in rows_of_cases for key in row} - {"case_id", "class_name"})
    rows: list[list[CellLike]] = []
    for case_id, class_rows in cases.rows.items():
        picture = cases.picture_anchors.get(case_id)
        for index, row in enumerate(class_rows):
            anchor = cases.row_anchors[case_id] if index == 0 else ""
            name = Cell(case_id, href=f"#{picture}" if picture else "", anchor=anchor)
            rows.append([name, str(row["class_name"]), *(m.cell(number(row.get(m.metric))) for m in measures)])
    table = Table(
        columns=["Case", "Class", *(measure.title for measure in measures)],
        column_notes=["", "", *(measure.better for measure in measures)],
        rows=rows,
        sortable=True,
    )
    intro = (
        "The case with the lowest mean Dice comes first. Click on a column's title to sort by it. “Absent” means that "
        "the value does not exist: the class is in neither the truth nor the prediction (for percentages: not "
        "in the truth). Underlined cases lead to their pictures."
    )
    return Section("Every case", intro, [table])
