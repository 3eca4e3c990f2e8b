"""Reported rows become one curve per metric."""

from __future__ import annotations

import json
from pathlib import Path

from flows.training.curves import curves_by_name, read_curves
from tests.support.records import CountFigures, finished


def test_rows_become_one_curve_per_metric(tmp_path: Path) -> None:
    rows = [{"step": 1, "train/loss": 2.0}, {"step": 2, "train/loss": 1.0, "val/dice": 0.5}, {"step": 2, "val/loss": 3}]
    (tmp_path / "curves.json").write_text(json.dumps(rows))
    record = finished("train", CountFigures(), str(tmp_path), curves="curves.json")
    assert curves_by_name(read_curves(record)) == {
        "train/loss": [(1, 2.0), (2, 1.0)],
        "val/dice": [(2, 0.5)],
        "val/loss": [(2, 3)],
    }
    assert curves_by_name([]) == {}
