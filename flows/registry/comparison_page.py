"""Page of the gate's decision: the scores of the new version beside the champion's, case by case."""

from __future__ import annotations

from flows.metrics import parse_metric_name
from flows.registry.champion import Champion, Compared
from flows.registry.gate import Comparison
from flows.report.blocks import KeyValue, KeyValues, Section, Table
from flows.report.html import render

MAX_ROWS = 1000
"""Cases that the page lists; ``comparison.parquet`` holds them all."""


def comparison_page(name: str, champion: Champion, compared: Compared, alias: str, reason: str) -> str:
    """Write the page as one HTML document."""
    decision = KeyValues([KeyValue("New version", alias), *_figures(compared.outcome)], style="headline")
    sections = [Section("Decision", f"{reason[:1].upper()}{reason[1:]}.", [decision])]
    if compared.rows is not None:
        shown = compared.rows.slice(0, MAX_ROWS)
        table = Table(shown.column_names, [list(row.values()) for row in shown.to_pylist()], sortable=True)
        intro = "Both models on the same held-out data."
        if len(compared.rows) > MAX_ROWS:
            intro += f" The first {MAX_ROWS} of {len(compared.rows)} cases; comparison.parquet holds all."
        sections.append(Section("Case by case", intro, [table]))
    return render(name, f"Compared with the champion, version {champion.version}", sections)


def _figures(outcome: object) -> list[KeyValue]:
    if not isinstance(outcome, Comparison):
        return []
    title = parse_metric_name(outcome.metric).title
    return [
        KeyValue(f"{title}, new", f"{outcome.ours:.4f}"),
        KeyValue(f"{title}, champion", f"{outcome.theirs:.4f}"),
        KeyValue("Better by at least", f"{outcome.lower_bound:.4f}", f"at level {outcome.level:g}"),
    ]
