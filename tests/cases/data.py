"""What training makes of a raw folder: problems, notices and samples, without a cluster."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from data_pipelines.errors import ConfigError, DataError, Problem
from data_pipelines.notices import Notice
from data_pipelines.volumes.cases import Dataset
from data_pipelines.volumes.checks import CheckedCase, check_case
from data_pipelines.volumes.sharding import Work, read_notices, shard_one, target_spacing
from data_pipelines.volumes.sources.find import find_cases
from data_pipelines.volumes.specs import DataSpec


@dataclass(slots=True)
class Seen:
    """Outcome of finding and checking the cases of a folder."""

    dataset: Dataset | None = None
    cases: dict[str, CheckedCase] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    notices: list[Notice] = field(default_factory=list)
    error: str = ""
    """Message of a folder that is refused as a whole."""

    @property
    def rules(self) -> Counter[str]:
        """Rules that are broken, with how often."""
        return Counter(problem.rule for problem in self.problems)

    @property
    def summary(self) -> str:
        """Say it in a line."""
        broken = ", ".join(f"{rule} {count}" for rule, count in sorted(self.rules.items()))
        noticed = Counter(notice.rule for notice in self.notices)
        shown = ", ".join(f"{rule} {count}" for rule, count in sorted(noticed.items()))
        parts = [f"{len(self.cases)} cases", broken and f"stops: {broken}", shown and f"notices: {shown}", self.error]
        return "; ".join(part for part in parts if part)


def see(root: Path, **fields: Any) -> Seen:
    """Find and check every case below ``root``."""
    seen, spec = Seen(), DataSpec(root=str(root), **fields)
    try:
        seen.dataset = find_cases(spec)
    except DataError as error:
        seen.problems = list(error.problems)
        return seen
    except ConfigError as error:
        seen.error = str(error)
        return seen
    seen.problems, seen.notices = list(seen.dataset.problems), list(seen.dataset.notices)
    for case in seen.dataset.cases:
        try:
            checked = check_case(case, seen.dataset, spec)
        except DataError as error:
            seen.problems += error.problems
        else:
            seen.cases[case.case_id] = checked
            seen.notices += checked.notices
    return seen


def shard(root: Path, folder: Path, **fields: Any) -> tuple[list[dict[str, Any]], list[Notice]]:
    """Shard the cases below ``root`` into one tar in ``folder``; return the index rows and the notices."""
    spec = DataSpec(root=str(root), **fields)
    dataset = find_cases(spec)
    spacing = target_spacing(dataset, spec)
    digests = tuple(case.case_id for case in dataset.cases)
    uri = str(folder / "shard.tar")
    work = Work(uri=uri, cases=dataset.cases, digests=digests, dataset=dataset, spec=spec, spacing=spacing)
    rows, problems = shard_one(work)
    assert not problems, problems
    return rows, read_notices(rows)


def expect_clean(seen: Seen, num_cases: int) -> None:
    """Assert that every case is used."""
    assert not seen.problems, seen.summary
    assert len(seen.cases) == num_cases, seen.summary


def expect_stop(seen: Seen, rule: str, *words: str) -> None:
    """Assert that the folder is refused by one rule, in words."""
    assert set(seen.rules) == {rule}, seen.summary
    text = " ".join(f"{problem.message} {problem.remedy}" for problem in seen.problems)
    assert all(word in text for word in words), text
    assert all(problem.path and problem.remedy for problem in seen.problems)


def expect_notice(seen: Seen, rule: str) -> None:
    """Assert that something is said about the input."""
    assert rule in {notice.rule for notice in seen.notices}, seen.summary


def same(ours: np.ndarray, theirs: np.ndarray, tolerance: float = 0) -> None:
    """Assert that two arrays have one shape and the same values."""
    assert ours.shape == theirs.shape, f"shapes {ours.shape} and {theirs.shape}"
    distance = float(np.abs(ours.astype(float) - theirs).max())
    assert distance <= tolerance, f"values differ by up to {distance}"
