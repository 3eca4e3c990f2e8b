"""The values that a training reported, step by step."""

from __future__ import annotations

import json
from collections.abc import Sequence

from data_pipelines import storage
from flows.report.curves import Curves
from flows.stages.record import Figures, Record

CurveRow = dict[str, float]
"""``step`` and the metrics reported there."""


def read_curves(record: Record[Figures]) -> list[CurveRow]:
    """Read the rows that a training reported."""
    rows: list[CurveRow] = json.loads(storage.read_bytes(record.output("curves")))
    return rows


def curves_by_name(rows: Sequence[CurveRow]) -> Curves:
    """Turn rows into one curve per metric."""
    curves: dict[str, list[tuple[int, float]]] = {}
    for row in rows:
        for name, value in row.items():
            if name != "step":
                curves.setdefault(name, []).append((int(row["step"]), value))
    return curves
