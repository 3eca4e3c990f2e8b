"""Which cases are trained on and which validate: from a splits file, or drawn by subject."""

from __future__ import annotations

import hashlib
import logging
from collections import Counter
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from data_pipelines.volumes.cases import Dataset
from data_pipelines.errors import DataError, Problem, UserError
from data_pipelines.volumes.sources.folders import read_json
from data_pipelines.volumes.specs import DataSpec

logger = logging.getLogger(__name__)

Split = Literal["train", "val"]


def assign_splits(
    dataset: Dataset, spec: DataSpec, quarantined: Collection[str] = (), tolerated: list[Problem] | None = None
) -> dict[str, Split]:
    """case_id -> side, for every case of ``dataset`` that takes part in fold ``spec.fold``.

    The splits come from ``spec.splits``, else from a ``splits_final.json`` beside the data, else they are drawn.
    ``quarantined`` names cases left out before: a splits file may name them, and they get no side. Cases in neither
    side of the file break a rule; with ``on_error: quarantine`` they are appended to ``tolerated`` and missing from the
    result. Raises DataError or UserError.
    """
    dataset = replace(dataset, cases=tuple(case for case in dataset.cases if case.case_id not in quarantined))
    if spec.splits is not None:
        path = Path(spec.root) / Path(spec.splits).expanduser()
        return _read_split(path, dataset, spec, quarantined, tolerated)
    if dataset.splits_path is not None:
        logger.info("splits are read from %s", dataset.splits_path)
        return _read_split(Path(dataset.splits_path), dataset, spec, quarantined, tolerated)
    return _draw_split(dataset, spec)


# --- a splits file ---------------------------------------------------------------------------------------------------


def _read_split(
    path: Path, dataset: Dataset, spec: DataSpec, quarantined: Collection[str], tolerated: list[Problem] | None
) -> dict[str, Split]:
    fold = _read_fold(path, spec.fold)
    known = {case.case_id for case in dataset.cases}
    left_out_before = {problem.case_id for problem in dataset.problems} | set(quarantined)
    fatal, tolerable = _fold_problems(path, fold, known, left_out_before)
    if fatal or (tolerable and spec.on_error == "stop"):
        raise DataError([*fatal, *tolerable])
    for problem in tolerable:
        logger.warning("%s", problem)
    if tolerated is not None:
        tolerated += tolerable
    sides: dict[str, Split] = {case_id: "train" for case_id in fold["train"] if case_id in known}
    sides |= {case_id: "val" for case_id in fold["val"] if case_id in known}
    return _both_sides(sides, str(path), "choose another data.fold, or correct the file")


def _read_fold(path: Path, fold: int) -> dict[str, list[str]]:
    """{"train": [ids], "val": [ids]} of one fold; UserError where the file is missing or malformed."""
    if not path.is_file():
        raise UserError(f"data.splits: there is no file {path}; correct the path, or leave it out to draw the splits")
    folds: Any = read_json(path)
    expected = 'must be a list of {"train": [case ids], "val": [case ids]}, as splits_final.json of nnU-Net'
    if not isinstance(folds, list) or not folds:
        raise UserError(f"{path}: {expected}; got {type(folds).__name__}")
    if fold >= len(folds):
        raise UserError(f"data.fold: {fold} is out of range; {path} has folds 0..{len(folds) - 1}")
    chosen = folds[fold]
    for side in ("train", "val"):
        ids = chosen.get(side) if isinstance(chosen, dict) else None
        if not isinstance(ids, list) or not all(isinstance(case_id, str) for case_id in ids):
            raise UserError(f"{path}: {expected}; fold {fold} has no such {side!r}")
    return chosen


def _fold_problems(
    path: Path, fold: dict[str, list[str]], known: set[str], left_out_before: set[str]
) -> tuple[list[Problem], list[Problem]]:
    """(problems that always stop, problems that quarantine lets pass)."""
    train, val = set(fold["train"]), set(fold["val"])
    fatal = [
        Problem("split-overlap", str(path), f"{i} is in train and in val", "keep it on one side", i)
        for i in sorted(train & val)
    ]
    for side in ("train", "val"):
        twice = [case_id for case_id, count in Counter(fold[side]).items() if count > 1]
        fatal += [Problem("split-twice", str(path), f"{i} is in {side} twice", "name it once", i) for i in twice]
    remedy = "correct the id, or take it out of the file"
    tolerable = [
        Problem("split-unknown", str(path), f"names {i}, and there is no such case", remedy, i)
        for i in sorted((train | val) - known - left_out_before)
    ]
    remedy = "add it to train or val, or use data.on_error=quarantine to go on without it"
    tolerable += [
        Problem("split-left-out", str(path), f"{i} is in neither train nor val of this fold", remedy, i)
        for i in sorted(known - train - val)
    ]
    return fatal, tolerable


# --- drawn splits ----------------------------------------------------------------------------------------------------


def _draw_split(dataset: Dataset, spec: DataSpec) -> dict[str, Split]:
    if spec.fold >= spec.num_folds:
        raise UserError(f"data.fold: {spec.fold} is out of range; data.num_folds is {spec.num_folds}")
    folds = draw_folds({case.subject for case in dataset.cases}, spec.num_folds, spec.split_seed)
    sides: dict[str, Split] = {
        case.case_id: "val" if folds[case.subject] == spec.fold else "train" for case in dataset.cases
    }
    return _both_sides(
        sides, f"fold {spec.fold} of {spec.num_folds}", "choose another data.fold or fewer data.num_folds"
    )


def draw_folds(subjects: Collection[str], num_folds: int, seed: int) -> dict[str, int]:
    """subject -> fold in 0..num_folds-1.

    A subject's fold is a hash of (seed, subject) and of nothing else. Shuffling and cutting into equal parts, the usual
    way, gives every subject a new fold when one is added: scores before and after cannot be compared, and a model
    trained before has seen the new validation cases. Here the subjects that were there stay where they were. The price
    is folds of unequal size: n/K +- sqrt(n (K-1))/K subjects.

    With few subjects a fold could come out empty. Only then are they ordered by the same hash and cut into equal parts;
    adding a subject moves at most one across each cut.
    """
    digests = {subject: _digest(subject, seed) for subject in subjects}
    folds = {subject: digest % num_folds for subject, digest in digests.items()}
    if len(set(folds.values())) == num_folds:
        return folds
    ordered = sorted(digests, key=lambda subject: (digests[subject], subject))
    return {subject: index * num_folds // len(ordered) for index, subject in enumerate(ordered)}


def _digest(subject: str, seed: int) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed}:{subject}".encode()).digest()[:8], "big")


def _both_sides(sides: dict[str, Split], where: str, remedy: str) -> dict[str, Split]:
    for side in ("train", "val"):
        if side not in sides.values():
            raise UserError(f"splits: no usable case is on the {side} side of {where}; {remedy}")
    return sides
