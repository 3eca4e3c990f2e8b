from __future__ import annotations

import pyarrow as pa
import pytest

from data_pipelines.errors import ConfigError
from flows.tuning.inner import inner_split


def index(subjects: list[str], split: list[str]) -> pa.Table:
    return pa.table({"key": [f"case-{number}" for number in range(len(split))], "subject": subjects, "split": split})


def test_held_out_cases_of_the_evaluation_are_not_there() -> None:
    """Both scans of a subject are on one side."""
    subjects = [f"s{number // 2}" for number in range(20)]
    split = ["val"] * 4 + ["train"] * 16
    rows = inner_split(index(subjects, split), num_folds=4, seed=0).to_pylist()
    assert [row["key"] for row in rows] == [f"case-{number}" for number in range(4, 20)]
    sides: dict[str, set[str]] = {}
    for row in rows:
        sides.setdefault(row["subject"], set()).add(row["split"])
    assert all(len(side) == 1 for side in sides.values())
    assert {"train", "val"} == {row["split"] for row in rows}


def test_one_subject_cannot_be_split() -> None:
    with pytest.raises(ConfigError, match="there are 1: at least 2 are needed"):
        inner_split(index(["a", "a", "b"], ["train", "train", "val"]), num_folds=5, seed=0)
