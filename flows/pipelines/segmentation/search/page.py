"""Report of a search: what was found, the Pareto front of score and latency, every trial."""

from __future__ import annotations

from collections.abc import Sequence

from flows.metrics import METRICS
from flows.pipelines.segmentation.config import SegmentationConfig
from flows.report.axes import number_text
from flows.report.blocks import Cell, CellLike, Details, Figure, KeyValue, KeyValues, Section, Table
from flows.report.html import render
from flows.report.scatter import Point, pareto_chart
from flows.report.sections import configuration_section
from flows.report.values import value_text
from flows.tuning.run import Searched
from flows.tuning.space import Values, describe
from flows.tuning.trial import Trial

DICE = METRICS["dice"]
CONFIGURED, CHOSEN = "as configured", "chosen"
SHORT_INTRO = "Trials below 100 % were ended early, behind others of the same training time, or when the time ran out."
LONG_INTRO = "The best short trials and the configuration, retrained for longer: of these the best is chosen."


def search_page(config: SegmentationConfig, searched: Searched, chosen: Values, settings: Sequence[str]) -> str:
    """Write the report as HTML; ``settings`` are the overrides that train the chosen network without a search."""
    long = [_table("The best, trained longer", LONG_INTRO, searched.finals)] if searched.finals else []
    sections = [
        _headline(searched, chosen, settings),
        *long,
        _front(searched.trials, chosen),
        _table("Every trial", SHORT_INTRO, searched.trials),
        configuration_section(config.model_dump(mode="json")),
    ]
    return render(f"{config.registry.name}: search", "Architecture search", sections)


def _headline(searched: Searched, chosen: Values, settings: Sequence[str]) -> Section:
    trials, compared = searched.trials, searched.compared
    best = next(trial for trial in compared if trial.is_whole and trial.values == chosen)
    configured = next(trial for trial in compared if not trial.values)
    items = [
        KeyValue("Chosen", value_text(DICE, best.outcome.score), describe(chosen)),
        KeyValue("As configured", value_text(DICE, configured.outcome.score), "of equal training time"),
        KeyValue("Trials", f"{len(trials):,}", f"{sum(trial.is_whole for trial in trials)} trained to their end"),
    ]
    intro = (
        "Mean foreground Dice of cases that were taken from the training cases: those of the evaluation were not used. "
        "The best of many trials owes some of its score to chance; the evaluation says what it is worth."
    )
    command = Details(
        "The same without a search", " ".join(f"--set {each}" for each in settings) or "the configuration"
    )
    return Section("Result", intro, [KeyValues(items, style="headline"), command])


def _front(trials: Sequence[Trial], chosen: Values) -> Section:
    points = [
        Point(_mark(trial, chosen) or describe(trial.values), trial.outcome.latency_ms, trial.outcome.score, is_marked)
        for trial in trials
        if trial.is_whole
        for is_marked in [bool(_mark(trial, chosen))]
    ]
    intro = (
        "Each dot is a trial that trained to its end; the dashed line joins those that no other beats in both score "
        "and latency (Pareto front). Point at a dot to see its settings."
    )
    chart = pareto_chart(
        points,
        title="Dice over the time of a forward pass",
        x_label="forward pass of one window, ms (lower is better)",
        y_label="Dice (higher is better)",
    )
    return Section("Score and latency", intro, [Figure(svg=chart)])


def _mark(trial: Trial, chosen: Values) -> str:
    if not trial.values:
        return CONFIGURED
    return CHOSEN if trial.values == chosen else ""


def _table(title: str, intro: str, trials: Sequence[Trial]) -> Section:
    rows: list[list[CellLike]] = []
    for trial in sorted(trials, key=lambda each: (not each.is_whole, -each.outcome.score)):
        outcome = trial.outcome
        trained = 100 * outcome.step / outcome.num_steps if outcome.num_steps else 0.0
        rows.append(
            [
                Cell(describe(trial.values), note=outcome.refused),
                Cell(value_text(DICE, outcome.score), number=outcome.score),
                Cell(f"{trained:.0f} %", number=trained),
                outcome.num_parameters,
                Cell(number_text(outcome.latency_ms), number=outcome.latency_ms),
                Cell(number_text(1000 * outcome.seconds_per_step), number=outcome.seconds_per_step),
            ]
        )
    columns = ["Settings", "Dice", "Trained", "Parameters", "Latency (ms)", "Step (ms)"]
    return Section(title, intro, [Table(columns, rows, sortable=True)])
