"""The page of a segmentation report: from the one number down to the single case, then what it was made from."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from data_pipelines.errors import Problem
from data_pipelines.notices import Notice
from flows.metrics import METRICS, Metric
from flows.pipelines.segmentation.evaluation.calibration import calibration_section
from flows.pipelines.segmentation.evaluation.cases import Cases, CaseView
from flows.pipelines.segmentation.evaluation.choices import (
    CandidateScore,
    MemberScore,
    candidates_section,
    members_section,
    mirroring_section,
    postprocessing_section,
)
from flows.pipelines.segmentation.evaluation.exits import ExitScore, exits_section
from flows.pipelines.segmentation.evaluation.scoring import ClassScore, subset_dice
from flows.pipelines.segmentation.mirroring import Variant
from flows.pipelines.segmentation.postprocess import Choice
from flows.report.blocks import (
    Block,
    Cell,
    CellLike,
    Figure,
    FigureRow,
    KeyValue,
    KeyValues,
    Section,
    Table,
)
from flows.report.charts import class_legend
from flows.report.curves import Curves
from flows.report.html import render
from flows.report.palette import class_colour, hex_colour
from flows.report.sections import (
    configuration_section,
    lineage_section,
    notices_section,
    quarantine_items,
    quarantine_section,
    training_section,
)
from flows.report.strip import strip_chart
from flows.report.values import interval_text, value_cell, value_text
from flows.training.goodput import TimeSplit
from flows.training.initial import Initialisation
from flows.training.initial_report import initial_section
from flows.training.time_report import times_section
from unet_models.metrics.summary import MEAN_CLASS, MetricSummary

if TYPE_CHECKING:
    from flows.pipelines.segmentation.calibration import Calibration

DICE = METRICS["dice"]

ROLES = {"worst": "Worst case", "median": "Median case", "best": "Best case"}


@dataclass(frozen=True, slots=True)
class SegmentationPage:
    """Contents of a segmentation report."""

    title: str
    """Heading, such as the model's name."""
    summaries: Sequence[MetricSummary]
    """One per metric and class, and per metric one of class ``mean``."""
    scores: Sequence[ClassScore]
    """One per case and class."""
    curves: Mapping[str, Curves]
    """By name of the training; of one alone the name is empty."""
    remark: str
    """Caution about the scores; empty where there is none."""
    views: Sequence[CaseView]
    """Cases in pictures."""
    problems: Sequence[Problem]
    """Input that was quarantined before training."""
    config: Mapping[str, Any]
    """The resolved configuration as JSON."""
    lineage: Mapping[str, str]
    """Stage keys, digests, commit, model, by name."""
    classes: Mapping[str, int]
    """Numbers of the classes by name, by which the pictures are coloured."""
    notices: Sequence[Notice] = ()
    """Assumptions and conversions in the input that was used."""
    times: Mapping[str, TimeSplit] = field(default_factory=dict)
    """Wall time of each training, by its name, by part."""
    init: Mapping[str, Initialisation] = field(default_factory=dict)
    """Weights that each training, by its name, started from; those that started from random ones are left out."""
    members: Sequence[MemberScore] = ()
    """Networks of an ensemble."""
    candidates: Sequence[CandidateScore] = ()
    """Configurations of which the best was chosen."""
    choice: Choice | None = None
    """Postprocessing that was tried."""
    exits: Sequence[ExitScore] = ()
    """Early exits at several thresholds."""
    calibration: Calibration | None = None
    """Temperatures of the probabilities; None where none were fitted."""
    variants: Sequence[Variant] = ()
    """Predictions with and without test-time mirroring."""


def segmentation_page(page: SegmentationPage) -> str:
    """Write the report as one HTML document."""
    cases = Cases.of(page.scores, page.views)
    classes = list(dict.fromkeys(s.class_name for s in page.summaries if s.class_name != MEAN_CLASS))
    sections = [
        _headline(page.summaries, cases, page.problems),
        _scores(page.summaries, classes, page.remark),
        _distribution(cases, classes),
        *_modalities(page.scores),
        _pictures(page.views, cases, page.classes),
        *([_gates(page.views)] if any(view.gates for view in page.views) else []),
        *([exits_section(page.exits)] if page.exits else []),
        *([candidates_section(page.candidates)] if page.candidates else []),
        *([members_section(page.members)] if page.members else []),
        *([mirroring_section(page.variants)] if len(page.variants) > 1 else []),
        *([postprocessing_section(page.choice)] if page.choice else []),
        *([calibration_section(page.calibration)] if page.calibration else []),
        training_section(page.curves),
        *([initial_section(page.init)] if page.init else []),
        *([times_section(page.times)] if page.times else []),
        _per_case(cases),
        quarantine_section(page.problems),
        *([notices_section(page.notices)] if page.notices else []),
        configuration_section(page.config),
        lineage_section(page.lineage),
    ]
    count = len(cases.scores)
    return render(page.title, f"Segmentation, evaluated on {count} case{'' if count == 1 else 's'}", sections)


def _metrics_in(names: Iterable[str]) -> list[Metric]:
    """Return the metrics among ``names`` in the order of the table of metrics."""
    present = set(names)
    return [metric for name, metric in METRICS.items() if name in present]


def _headline(summaries: Sequence[MetricSummary], cases: Cases, problems: Sequence[Problem]) -> Section:
    mean = next((s for s in summaries if (s.metric, s.class_name) == (DICE.name, MEAN_CLASS)), None)
    interval = interval_text(DICE, mean.low, mean.high) if mean is not None else ""
    items = [
        KeyValue(
            "Mean Dice",
            value_text(DICE, mean.mean if mean is not None else None),
            interval and f"95% interval {interval}",
        ),
        KeyValue("Cases", f"{len(cases.scores):,}", "evaluated"),
    ]
    if finite := [(value, case_id) for case_id, value in cases.dice.items() if math.isfinite(value)]:
        value, case_id = min(finite)
        items.append(KeyValue("Lowest case", value_text(DICE, value), case_id))
    items += quarantine_items(problems)
    intro = (
        "Dice says how well the predicted region covers the true one: 0 is no overlap, 1 is identical, higher is "
        "better. The mean is taken over the cases for each class, then over the classes. The interval says how far it "
        "would move, 19 times out of 20, had other cases of the same kind been drawn (bootstrap)."
    )
    return Section("Result", intro, [KeyValues(items, style="headline")])


def _scores(summaries: Sequence[MetricSummary], classes: Sequence[str], remark: str) -> Section:
    metrics = _metrics_in(s.metric for s in summaries)
    by_key = {(s.metric, s.class_name): s for s in summaries}
    rows = []
    for name in [*classes, MEAN_CLASS] if summaries else []:
        summaries_of_class = [by_key.get((metric.name, name)) for metric in metrics]
        cells = [
            value_cell(m, s.mean, interval_text(m, s.low, s.high))
            if s is not None
            else Cell("not computed", number=math.nan)
            for m, s in zip(metrics, summaries_of_class, strict=True)
        ]
        counted = by_key.get((DICE.name, name))
        label = "Mean of the classes" if name == MEAN_CLASS else name
        rows.append([label, *cells, counted.num_cases if counted is not None else None])
    table = Table(
        columns=["Class", *(metric.titled for metric in metrics), "Cases"],
        column_notes=["", *(metric.direction for metric in metrics), "with the class"],
        rows=rows,
        caption="Mean over the cases; under it the 95% bootstrap interval.",
    )
    glossary = Table(
        columns=["Measure", "How to read it"],
        rows=[[Cell(metric.titled, note=metric.direction), metric.meaning] for metric in metrics],
    )
    intro = (
        "One row per class, each measure averaged over the cases. A case counts for a class unless the class is "
        "absent from both its truth and its prediction."
    )
    intro = f"{intro} {remark}".rstrip()
    return Section("Scores per class", intro, [table, glossary])


def _distribution(cases: Cases, classes: Sequence[str]) -> Section:
    rows = {name: cases.dots(name) for name in classes}
    if len(classes) > 1:
        rows = {"Mean of the classes": cases.dots(MEAN_CLASS)} | rows
    intro = (
        "Each dot is one case; further right is better. The grey box holds the middle half of the cases, the line in "
        "it is the median. Point at a dot to see which case it is, click on it to see its numbers. The lowest case of "
        "each row is named. The axis begins near the lowest value, which need not be 0."
    )
    return Section("Spread over the cases", intro, [Figure(svg=strip_chart(rows, x_label="Dice of a case"))])


def _modalities(scores: Sequence[ClassScore]) -> list[Section]:
    """Compare the Dice with each subset of the modalities; nothing for networks of images alone."""
    subsets = subset_dice(scores)
    if not subsets:
        return []
    rows: list[list[CellLike]] = [
        [name.replace(",", ", "), value_cell(DICE, dice)]
        for name, dice in sorted(subsets.items(), key=lambda item: (item[0].count(","), item[0]))
    ]
    intro = "Mean Dice where only a part of each case is given; the scores above are those with everything."
    return [Section("Missing modalities", intro, [Table(["Given", DICE.titled], rows)])]


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
        scores = [
            f"{score.class_name} {value_text(DICE, score.metrics['dice'])}"
            for score in cases.scores.get(view.case_id, [])
        ]
        caption = ", ".join([f"Mean Dice {value_text(DICE, view.dice)}", *(scores if len(scores) > 1 else [])])
        # One case may be worst and best at once; a link has one target.
        anchor = "" if view.case_id in anchored else cases.picture_anchors[view.case_id]
        anchored.add(view.case_id)
        blocks.append(FigureRow(figures, f"{ROLES[view.role]}: {view.case_id}", caption, anchor))
    intro = (
        "The outline is the truth, the translucent colour is the prediction: where they agree, the colour fills the "
        "outline. Each plane goes through the slice with most of the truth in it. All planes of a case have the same "
        "scale in millimetres."
    )
    if any(len(view.planes) > 1 and view.is_canonical for view in views):
        intro += " In axial and coronal planes the patient's right is on the left; in sagittal ones anterior is."
    return Section("Cases in pictures", intro, blocks)


def _gates(views: Sequence[CaseView]) -> Section:
    blocks = []
    for view in {view.case_id: view for view in views}.values():
        figures = [Figure(png=png, caption=name, alt=f"{view.case_id}, {name}") for name, png in view.gates.items()]
        blocks.append(FigureRow(figures, f"{ROLES[view.role]}: {view.case_id}"))
    intro = (
        "The weights that the attention gates give to the encoder's features: bright where features pass to the "
        "decoder, dark where the gate holds them back; their mean, and each stage's, full resolution first."
    )
    return Section("Attention gates", intro, blocks)


def _per_case(cases: Cases) -> Section:
    all_scores = [score for scores in cases.scores.values() for score in scores]
    metrics = _metrics_in(name for score in all_scores for name in score.metrics)
    rows: list[list[CellLike]] = []
    for case_id, scores in cases.scores.items():
        picture = cases.picture_anchors.get(case_id)
        for index, score in enumerate(scores):
            anchor = cases.row_anchors[case_id] if index == 0 else ""
            name = Cell(case_id, href=f"#{picture}" if picture else "", anchor=anchor)
            rows.append([name, score.class_name, *(value_cell(m, score.metrics[m.name]) for m in metrics)])
    table = Table(
        columns=["Case", "Class", *(metric.titled for metric in metrics)],
        column_notes=["", "", *(metric.direction for metric in metrics)],
        rows=rows,
        sortable=True,
    )
    intro = (
        "The case with the lowest mean Dice comes first. Click on a column's title to sort by it. “Absent” means that "
        "the value does not exist: the class is in neither the truth nor the prediction (for percentages: not "
        "in the truth). Underlined cases lead to their pictures."
    )
    return Section("Every case", intro, [table])
