"""Rules about names and declarations that every layout shares."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from data_pipelines.errors import DataError
from data_pipelines.volumes.sources import dicom
from data_pipelines.volumes.sources.folders import find_cases
from data_pipelines.volumes.sources.names import check_id, subject_of
from data_pipelines.volumes.specs import DataSpec


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


def test_names_that_are_not_utf8_are_problems_and_can_be_stored(tmp_path: Path) -> None:
    root = os.fsencode(tmp_path)
    for name in (
        b"images/caf\xe9.png",
        b"masks/caf\xe9.png",
        b"images/notes.t\xe9t",
        b"images/ok.png",
        b"masks/ok.png",
    ):
        os.makedirs(os.path.dirname(os.path.join(root, name)), exist_ok=True)
        with open(os.path.join(root, name), "wb"):
            pass
    found = find_cases(tmp_path, DataSpec(ndim=2, channels=("grey",)))
    assert [case.case_id for case in found.cases] == ["ok"]
    assert [(problem.rule, problem.case_id) for problem in found.problems] == [("bad-name", "caf\\udce9")] * 2
    (skipped,) = found.notices
    for text in (found.problems[0].path, skipped.path, skipped.message):
        assert b"\\udce9" in text.encode()


def test_a_slice_whose_name_is_not_utf8_is_a_problem(tmp_path: Path) -> None:
    (tmp_path / "case" / "image").mkdir(parents=True)
    for name in ("label.nii", os.fsdecode(b"image/\xe9.dcm")):
        (tmp_path / "case" / name).touch()
    spec = DataSpec(classes={"background": 0, "liver": 1})
    assert [problem.rule for problem in dicom.find_cases(tmp_path, spec).problems] == ["bad-name"]
