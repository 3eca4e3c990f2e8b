"""Split of the cases into training and validation: from a splits file, or drawn by subject."""

from __future__ import annotations

import hashlib
import logging
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from data_pipelines.errors import ConfigError, DataError, Problem, ProblemList, broken_rule
from data_pipelines.notices import Notice, notice
from data_pipelines.volumes.cases import Dataset
from data_pipelines.volumes.sources.names import normal, read_json
from data_pipelines.volumes.specs import DataSpec

logger = logging.getLogger(__name__)

Side = Literal["train", "val"]


@dataclass(frozen=True, slots=True)
class Splits:
    """One fold of a data set."""

    sides: dict[str, Side]
    """case_id -> side, for every case that takes part in the fold."""
    problems: tuple[Problem, ...] = ()
    """Problems of a splits file that ``on_error: quarantine`` tolerates; their cases take no part."""


def assign_splits(dataset: Dataset, spec: DataSpec, quarantined: Collection[str] = ()) -> Splits:
    """Assign every case of ``dataset`` that takes part in the fold of ``spec`` to a side.

    The splits come from ``spec.splits``, else from a ``splits_final.json`` beside the data, else they are drawn.
    ``quarantined`` names cases that were excluded before: a splits file may name them, and they get no side. Cases on
    neither side of the file break a rule, which ``on_error: quarantine`` tolerates. Raises DataError where the file
    breaks other rules, ConfigError where there is no such fold or a side has no case.
    """
    dataset = replace(dataset, cases=tuple(case for case in dataset.cases if case.case_id not in quarantined))
    path = find_splits_file(dataset, spec)
    if path is None:
        return _draw_split(dataset, spec)
    if spec.splits is None:
        logger.info("splits are read from %s", path)
    return _read_split(path, dataset, spec, quarantined)


def find_splits_file(dataset: Dataset, spec: DataSpec) -> Path | None:
    """Return the file of the splits: the one of ``spec``, else one beside the data; None: they are drawn."""
    if spec.splits is not None:
        return Path(spec.root) / Path(spec.splits).expanduser()
    return None if dataset.splits_path is None else Path(dataset.splits_path)


def find_folds(dataset: Dataset, spec: DataSpec) -> tuple[int, ...]:
    """Return the numbers of all folds. Raises DataError or ConfigError where the splits file cannot be read."""
    path = find_splits_file(dataset, spec)
    return tuple(range(spec.num_folds if path is None else len(_read_folds(path))))


# --- a splits file ---------------------------------------------------------------------------------------------------


def _read_split(path: Path, dataset: Dataset, spec: DataSpec, quarantined: Collection[str]) -> Splits:
    fold = _read_fold(path, spec.held_out_fold)
    known = {case.case_id for case in dataset.cases}
    excluded = {problem.case_id for problem in dataset.problems} | set(quarantined)
    fatal = [*_contradictions(path, fold), *_shared_subjects(path, fold, dataset)]
    tolerable = _mismatches(path, fold, known, excluded)
    if fatal or (tolerable and spec.on_error == "stop"):
        raise DataError([*fatal, *tolerable])
    for problem in tolerable:
        logger.warning("%s: %s [%s] -> %s", problem.path, problem.message, problem.rule, problem.remedy)
    sides: dict[str, Side] = {case_id: "train" for case_id in fold["train"] if case_id in known}
    sides |= {case_id: "val" for case_id in fold["val"] if case_id in known}
    _check_both_sides(sides, str(path), "choose another data.fold, or correct the file")
    return Splits(sides, tuple(tolerable))


SPLITS_REMEDY = 'write a list of {"train": [case ids], "val": [case ids]}, as splits_final.json of nnU-Net'


def _read_folds(path: Path) -> list[Any]:
    """Read a splits file. Raises DataError where it is no list of folds, ConfigError where there is no such file."""
    if not path.is_file():
        raise ConfigError(
            f"data.splits: there is no file {path}; correct the path, or leave it out to generate the splits"
        )
    folds: Any = read_json(path)
    if not isinstance(folds, list) or not folds:
        message = f"must be a list of folds, got {type(folds).__name__} {folds!r:.60}"
        raise broken_rule("bad-splits", path, message, SPLITS_REMEDY)
    return folds


def _read_fold(path: Path, fold: int) -> dict[str, list[str]]:
    """Read {"train": [ids], "val": [ids]} of one fold.

    Raises DataError where the file is malformed, ConfigError where there is no such file or fold.
    """
    folds = _read_folds(path)
    if fold >= len(folds):
        raise ConfigError(f"data.fold: {fold} is out of range; {path} has folds 0..{len(folds) - 1}")
    chosen = folds[fold]
    for side in ("train", "val"):
        ids = chosen.get(side) if isinstance(chosen, dict) else None
        if not isinstance(ids, list) or not all(isinstance(case_id, str) for case_id in ids):
            raise broken_rule("bad-splits", path, f"fold {fold} has no list of case ids {side!r}", SPLITS_REMEDY)
    return {side: [normal(case_id) for case_id in chosen[side]] for side in ("train", "val")}


def _contradictions(path: Path, fold: dict[str, list[str]]) -> ProblemList:
    """Collect the problems that always stop: cases named twice."""
    problems = ProblemList(
        Problem("split-overlap", str(path), f"{i} is in train and in val", "keep it on one side", i)
        for i in sorted(set(fold["train"]) & set(fold["val"]))
    )
    for side in ("train", "val"):
        twice = [case_id for case_id, count in Counter(fold[side]).items() if count > 1]
        problems += [Problem("split-twice", str(path), f"{i} is in {side} twice", "name it once", i) for i in twice]
    return problems


def _shared_subjects(path: Path, fold: dict[str, list[str]], dataset: Dataset) -> ProblemList:
    """Collect the subjects with cases on both sides, which always stop: files drawn by case, as nnU-Net's are."""
    train_ids, val_ids = set(fold["train"]), set(fold["val"])
    alone = (train_ids - val_ids, val_ids - train_ids)  # a case in both is a split-overlap
    train, val = ({case.subject: case.case_id for case in dataset.cases if case.case_id in ids} for ids in alone)
    remedy = "keep a subject on one side; where they are different people, use data.subject_pattern='.+'"
    return ProblemList(
        Problem(
            "split-subject",
            str(path),
            f"subject {subject} is in train ({train[subject]}) and in val ({val[subject]})",
            remedy,
        )
        for subject in sorted(train.keys() & val.keys())
    )


def _mismatches(path: Path, fold: dict[str, list[str]], known: set[str], excluded: set[str]) -> ProblemList:
    """Collect the problems that quarantine tolerates: cases that only the file knows, or only the data set."""
    listed = set(fold["train"]) | set(fold["val"])
    remedy = "correct the id, or take it out of the file"
    problems = ProblemList(
        Problem("split-unknown", str(path), f"names {i}, and there is no such case", remedy, i)
        for i in sorted(listed - known - excluded)
    )
    remedy = "add it to train or val, or use data.on_error=quarantine to continue without it"
    problems += [
        Problem("split-left-out", str(path), f"{i} is in neither train nor val of this fold", remedy, i)
        for i in sorted(known - listed)
    ]
    return problems


# --- drawn splits ----------------------------------------------------------------------------------------------------


def _draw_split(dataset: Dataset, spec: DataSpec) -> Splits:
    fold = spec.held_out_fold
    if fold >= spec.num_folds:
        raise ConfigError(f"data.fold: {fold} is out of range; data.num_folds is {spec.num_folds}")
    held_out = draw_held_out({case.subject for case in dataset.cases}, fold, spec.num_folds, spec.split_seed)
    sides: dict[str, Side] = {case.case_id: "val" if case.subject in held_out else "train" for case in dataset.cases}
    remedy = "choose another data.fold or fewer data.num_folds (of all folds: another data.num_folds)"
    _check_both_sides(sides, f"fold {fold} of {spec.num_folds}", remedy)
    return Splits(sides)


def draw_held_out(subjects: Collection[str], fold: int, num_folds: int, seed: int | str) -> set[str]:
    """Draw the subjects of a fold in 0..num_folds-1; one that was trained on is never held out when others are added.

    A subject's fold is a hash of (seed, subject) and of nothing else. Shuffling and cutting into equal parts, the usual
    way, gives every subject a new fold when one is added: scores before and after cannot be compared, and a model
    trained before has seen the new validation cases. The price is folds of unequal size: n/K +- sqrt(n (K-1))/K
    subjects.

    Of few subjects a fold could come out empty. Then the one of the smallest hash of (seed, fold, subject) is held out:
    when subjects are added, the same or a new one. (It is held out in its own fold, too.)
    """
    held_out = {subject for subject in subjects if _digest(f"{seed}:{subject}") % num_folds == fold}
    if held_out or not subjects:
        return held_out
    return {min(subjects, key=lambda subject: (_digest(f"{seed}:{fold}:{subject}"), subject))}


def _digest(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


def _check_both_sides(sides: dict[str, Side], where: str, remedy: str) -> None:
    """Raise ConfigError where a side has no case."""
    for side in ("train", "val"):
        if side not in sides.values():
            raise ConfigError(f"splits: no usable case is on the {side} side of {where}; {remedy}")


def check_classes_are_trained(absent: Sequence[str], dataset: Dataset) -> None:
    """Raise DataError where no training case shows a class: ``absent`` names them."""
    if absent:
        message = f"no training case of this fold shows class {', '.join(absent)}: the model could never learn it"
        remedy = (
            "choose another data.fold (of all: another data.num_folds), add cases that show it, or take it out of the "
            "declaration"
        )
        raise broken_rule("class-not-trained", Path(dataset.cases[0].label).parent, message, remedy)


def notice_unscored(absent: Sequence[str], dataset: Dataset) -> list[Notice]:
    """Notice the classes that no held-out case shows: ``absent`` names them."""
    where = Path(dataset.cases[0].label).parent
    return [notice("class-not-held-out", where, f"no held-out case shows class {name}: no scores") for name in absent]


def classes_without_case(
    sides: Mapping[str, Side], class_voxels: Mapping[str, Sequence[int]], targets: Mapping[str, Sequence[int]]
) -> dict[Side, list[str]]:
    """List, for each side, the targets that no case of it shows; ``class_voxels`` maps case to voxels per class."""
    absent: dict[Side, list[str]] = {"train": [], "val": []}
    for side, names in absent.items():
        counts = [class_voxels[case_id] for case_id, each in sides.items() if each == side]
        names += [name for name, of in targets.items() if not any(count[number] for count in counts for number in of)]
    return absent
