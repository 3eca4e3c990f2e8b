"""Leaks between the sides of a split: subjects by pattern, copies by content, scans of one patient by name."""

from __future__ import annotations

import pytest

from data_pipelines.errors import ConfigError
from data_pipelines.volumes.cases import Case, Dataset
from data_pipelines.volumes.leaks import assign_subjects, copy_problems, patient_notices, suspected_patients
from tests.support.volumes import numbered

SCANS = ("patient001_frame01", "patient001_frame12", "patient002_frame01", "patient002_frame12")


def dataset(*ids: str) -> Dataset:
    return Dataset("set", tuple(Case(i, (f"{i}.nii.gz",), "l", i) for i in ids), numbered("background", "a"), ("MR",))


@pytest.mark.parametrize("pattern", ["patient[0-9]+", "^(patient[0-9]+)_", "(?P<subject>patient[0-9]+)_frame"])
def test_subjects_by_pattern(pattern: str) -> None:
    found = assign_subjects(dataset(*SCANS), pattern)
    assert [case.subject for case in found.cases] == ["patient001", "patient001", "patient002", "patient002"]


def test_a_pattern_that_misses_cases() -> None:
    with pytest.raises(ConfigError, match=r"data.subject_pattern: .* is not found in 1 of 5 case ids: other"):
        assign_subjects(dataset(*SCANS, "other"), "patient[0-9]+")


def test_one_scan_under_two_names() -> None:
    cases = {case.case_id: case for case in dataset("a", "b", "c").cases}
    rows = [{"case_id": i, "pixel_sha256": pixels} for i, pixels in (("a", "1"), ("b", "2"), ("c", "1"))]
    (problem,) = copy_problems(rows, cases)
    assert (problem.rule, problem.case_id, problem.path) == ("same-image", "c", "c.nii.gz")
    assert "same voxels as case a" in problem.message
    raters = {i: Case(i, (f"{i}.nii.gz",), "l", "one subject") for i in cases}
    assert copy_problems(rows, raters) == []


@pytest.mark.parametrize(
    ("sides", "found"),
    [
        ("tvtt", [SCANS[:2]]),
        ("tttt", []),
        ("ttvv", []),
    ],
)
def test_scans_of_one_patient_on_both_sides(sides: str, found: list[tuple[str, ...]]) -> None:
    assigned = {scan: {"t": "train", "v": "val"}[side] for scan, side in zip(SCANS, sides, strict=True)}
    assert suspected_patients(assigned, {scan: scan for scan in SCANS}) == found
    declared = {scan: scan.split("_")[0] for scan in SCANS}
    assert suspected_patients(assigned, declared) == []


def test_cases_that_are_merely_numbered() -> None:
    sides = {"case_01": "train", "case_02": "val", "case_03": "train"}
    assert suspected_patients(sides, {case: case for case in sides}) == []


def test_the_notice_names_the_scans_and_the_setting() -> None:
    sides = {scan: "val" if scan == SCANS[1] else "train" for scan in SCANS}
    (found,) = patient_notices(sides, dataset(*SCANS))
    assert (found.rule, found.path) == ("patient-on-both-sides", f"{SCANS[0]}.nii.gz")
    assert found.message.startswith("patient001_frame01, patient001_frame12 look like scans of one patient")
    assert "data.subject_pattern" in found.message
