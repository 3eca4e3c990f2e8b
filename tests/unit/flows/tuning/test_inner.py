from __future__ import annotations

import pyarrow as pa
import pytest

from data_pipelines.errors import ConfigError
from data_pipelines.volumes.splits import draw_held_out
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


def test_the_seed_of_the_outer_split_may_be_the_same() -> None:
    subjects = [f"s{number}" for number in range(100)]
    outer = draw_held_out(subjects, 0, 5, 0)
    split = ["val" if subject in outer else "train" for subject in subjects]
    rows = inner_split(index(subjects, split), num_folds=5, seed=0).to_pylist()
    assert 8 <= sum(row["split"] == "val" for row in rows) <= 24  # 16 by chance


def test_one_subject_cannot_be_split() -> None:
    with pytest.raises(ConfigError, match="there are 1: at least 2 are needed"):
        inner_split(index(["a", "a", "b"], ["train", "train", "val"]), num_folds=5, seed=0)
