"""The weights that trainings started from, in a report."""

from __future__ import annotations

from collections.abc import Mapping

from flows.report.blocks import Block, Cell, CellLike, KeyValue, KeyValues, Section, Table, Text
from flows.training.initial import Initialisation


def initial_section(trainings: Mapping[str, Initialisation]) -> Section:
    """Write the section of a report; titles of the trainings (empty for one alone) to what they started from."""
    blocks: list[Block] = []
    for title, done in trainings.items():
        total = done.num_taken + len(done.reinitialised)
        taken = f"{done.num_taken} of {total} tensors, {done.share:.1%} of the weights"
        start = KeyValue(f"{title}: start" if title else "Start", done.origin.source, taken)
        blocks.append(KeyValues([start, KeyValue("SHA-256", done.origin.sha256)], style="code"))
        blocks += [Text(f"{remark[0].upper()}{remark[1:]}.") for remark in done.remarks]
        rows: list[list[CellLike]] = [[Cell(each.name), each.reason] for each in done.reinitialised]
        if rows:
            blocks.append(Table(["Re-initialised", "Why"], rows))
    intro = "The training started from weights that were trained before, wherever name and shape fit (train.init)."
    return Section("Initial weights", intro, blocks)
