"""Rules about names and declarations that every layout shares."""

from __future__ import annotations

from pathlib import Path

import pytest

from data_pipelines.errors import DataError
from data_pipelines.volumes.sources.names import check_id, subject_of


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


def test_subjects() -> None:
    assert subject_of("sub-07_ses-2_T1w", {}) == "sub-07"
    assert subject_of("hippocampus_001", {}) == "hippocampus_001"
    assert subject_of("sub-07_ses-2", {"sub-07_ses-2": "anna"}) == "anna"
