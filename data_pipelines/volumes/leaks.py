"""Ways in which what is trained on could be held out, too: one scan under two names, scans of one patient."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from data_pipelines.errors import ConfigError, ProblemList, broken_rule
from data_pipelines.notices import Notice, notice
from data_pipelines.shards.index import Row
from data_pipelines.volumes.cases import Case, Dataset

_SCAN_SUFFIX = re.compile(r"[-_. ]?[A-Za-z]*[0-9]+$")
"""Last part of a name that counts the scans of a patient: ``_frame01`` of ``patient001_frame01``."""


def assign_subjects(dataset: Dataset, pattern: str) -> Dataset:
    """Name each case's subject by a regular expression: its first group, or all of its match.

    Raises ConfigError where the id of a case does not match.
    """
    matches = {case.case_id: re.search(pattern, case.case_id) for case in dataset.cases}
    if strangers := [case_id for case_id, match in matches.items() if match is None]:
        raise ConfigError(
            f"data.subject_pattern: {pattern!r} is not found in {len(strangers)} of {len(matches)} case ids: "
            f"{', '.join(strangers[:3])}; correct it, or name the subjects in subjects.json"
        )
    cases = tuple(_with_subject(case, matches[case.case_id]) for case in dataset.cases)
    return replace(dataset, cases=cases)


def _with_subject(case: Case, match: re.Match[str] | None) -> Case:
    if match is None:
        return case
    return replace(case, subject=match[1] if match.re.groups and match[1] is not None else match[0])


def copy_problems(rows: Sequence[Row], cases: Mapping[str, Case]) -> ProblemList:
    """Collect the cases whose image has the voxels of an earlier case of another subject.

    Of one subject they are allowed, for labels of several raters: they stay on one side of a split.
    """
    groups: dict[str, list[str]] = defaultdict(list)
    for row in rows:
        groups[row["pixel_sha256"]].append(row["case_id"])
    problems = ProblemList()
    for first, *others in groups.values():
        for case_id in others:
            if cases[case_id].subject != cases[first].subject:
                with problems.collecting(case_id):
                    message = f"has the same voxels as case {first}: what is trained on could also be held out"
                    remedy = "leave one of them out, or give both one subject (subjects.json, data.subject_pattern)"
                    raise broken_rule("same-image", cases[case_id].images[0], message, remedy)
    return problems


def patient_notices(sides: Mapping[str, str], dataset: Dataset) -> list[Notice]:
    """Notice cases on both sides of a split that look like scans of one patient."""
    cases = {case.case_id: case for case in dataset.cases}
    found = suspected_patients(sides, {case_id: case.subject for case_id, case in cases.items()})
    message = (
        "{} look like scans of one patient and are on both sides of the split: scores would be too good; name the "
        "patients in data.subject_pattern or subjects.json"
    )
    return [
        notice("patient-on-both-sides", cases[group[0]].images[0], message.format(_names(group))) for group in found
    ]


def _names(group: Sequence[str]) -> str:
    return ", ".join(group[:3]) + (f" and {len(group) - 3} more" if len(group) > 3 else "")


def suspected_patients(sides: Mapping[str, str], subjects: Mapping[str, str]) -> list[tuple[str, ...]]:
    """Group cases on both sides of a split whose names differ only in a last number, as scans of one patient do.

    ``case_01``, ``case_02``, ... are no such group: a set of which all cases would be one patient's.
    """
    groups: dict[str, list[str]] = defaultdict(list)
    for case_id in sorted(sides):
        groups[_SCAN_SUFFIX.sub("", case_id)].append(case_id)
    several = [tuple(group) for stem, group in groups.items() if stem and len(group) > 1]
    if len(groups) < 2 or not several:
        return []
    return [group for group in several if len({sides[i] for i in group}) > 1 and _are_apart(group, subjects)]


def _are_apart(group: Iterable[str], subjects: Mapping[str, str]) -> bool:
    return len({subjects[case_id] for case_id in group}) > 1
