"""Rules about names and declarations that every layout shares."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_pipelines.errors import DataError
from data_pipelines.volumes.sources.names import check_classes, check_id, subject_of


@pytest.mark.parametrize("case_id", ["case_01", "BraTS2021-00000", "1.3.6.1.4", "Zürich 3", "a" * 80])
def test_usable_ids(case_id: str) -> None:
    check_id(case_id, Path("path"))


@pytest.mark.parametrize(
    "case_id", ["", " ", " a", ".hidden", "..", "a/b", "a\\b", "a:b", "a\nb", "a\0b", "-rf", "~a", "a" * 81, "ü" * 41]
)
def test_unusable_ids(case_id: str) -> None:
    with pytest.raises(DataError) as caught:
        check_id(case_id, Path("path"))
    assert [problem.rule for problem in caught.value.problems] == ["bad-case-id"]


@given(st.dictionaries(st.text(min_size=1), st.integers(-3, 12), max_size=8))
def test_classes_are_accepted_only_without_holes(declared: dict[str, int]) -> None:
    if len(declared) >= 2 and sorted(declared.values()) == list(range(len(declared))):
        assert list(check_classes(declared, "here").values()) == list(range(len(declared)))
    else:
        with pytest.raises(DataError):
            check_classes(declared, "here")


def test_subjects() -> None:
    assert subject_of("sub-07_ses-2_T1w", {}) == "sub-07"
    assert subject_of("hippocampus_001", {}) == "hippocampus_001"
    assert subject_of("sub-07_ses-2", {"sub-07_ses-2": "anna"}) == "anna"
