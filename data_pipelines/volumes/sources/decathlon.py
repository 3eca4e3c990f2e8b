"""Medical Segmentation Decathlon folders.

ROOT/dataset.json           "training": [{"image": "./imagesTr/NAME.nii.gz", "label": "./labelsTr/NAME.nii.gz"}]
ROOT/imagesTr/NAME.nii.gz   several modalities are the fourth axis of one file
ROOT/labelsTr/NAME.nii.gz
"""

from __future__ import annotations

import logging
from collections import defaultdict
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from data_pipelines.errors import ProblemList, broken_rule
from data_pipelines.volumes.cases import Case, Dataset
from data_pipelines.volumes.files import strip_suffix
from data_pipelines.volumes.sources.declarations import (
    Declared,
    dataset_metadata,
    declared_channels,
    declared_classes,
    read_dataset_json,
)
from data_pipelines.volumes.sources.names import (
    check_not_empty,
    find_splits,
    id_problems,
    list_volumes,
    pair_ids,
    read_subjects,
    subject_of,
)
from data_pipelines.volumes.specs import DataSpec

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Pair:
    """An image and its label, by their names alone."""

    case_id: str
    image: Path
    label: Path


def find_cases(root: Path, spec: DataSpec) -> Dataset:
    """Find the cases that ``dataset.json`` lists; files that break a rule by their name are in ``problems``.

    Without a list the files of ``imagesTr`` and ``labelsTr`` are paired by name. An image or label that lies there
    unlisted and alone is a problem; a complete pair left out of the list is the author's choice and only logged.
    """
    declared = read_dataset_json(root)
    pairs, problems = _listed_pairs(root, declared) if declared.get("training") else _pairs_on_disk(root)
    usable, pair_problems = _usable_pairs(pairs)
    problems += pair_problems
    if declared.get("training"):
        problems += _unlisted(root, pairs)
    with problems.collecting():
        check_not_empty(root / "imagesTr", {pair.case_id: pair for pair in pairs})
    subjects = read_subjects(root)
    cases = [Case(p.case_id, (str(p.image),), str(p.label), subject_of(p.case_id, subjects)) for p in usable]
    return Dataset(
        name=str(declared.get("name") or root.resolve().name),
        cases=tuple(sorted(cases, key=lambda case: case.case_id)),
        classes=declared_classes(declared, spec, root),
        channels=declared_channels(declared, spec, root),
        problems=tuple(problems),
        splits_path=find_splits(root),
        metadata=dataset_metadata(declared),
    )


def _listed_pairs(root: Path, declared: Declared) -> tuple[list[_Pair], ProblemList]:
    """Parse the entries of ``training``; malformed ones are problems."""
    pairs, problems = [], ProblemList()
    training = declared["training"] if isinstance(declared["training"], list) else [declared["training"]]
    for entry in training:
        with problems.collecting():
            pairs.append(_parse_entry(root, entry))
    return pairs, problems


def _parse_entry(root: Path, entry: object) -> _Pair:
    """Parse one entry of ``training``. Raises DataError where it is malformed or leads out of the data set."""
    source = root / "dataset.json"
    if not isinstance(entry, dict) or not all(isinstance(entry.get(key), str) for key in ("image", "label")):
        message = f'an entry of "training" must be {{"image": ..., "label": ...}}, got {entry!r:.200}'
        raise broken_rule("bad-entry", source, message, "correct the entry")
    case_id = strip_suffix(Path(entry["image"]).name)
    if outside := [p for p in (entry["image"], entry["label"]) if Path(p).is_absolute() or ".." in Path(p).parts]:
        message = f"paths must lie inside the data set, got {outside[0]}"
        raise broken_rule("path-outside", source, message, "write it relative to dataset.json", case_id)
    return _Pair(case_id, root / entry["image"], root / entry["label"])


def _pairs_on_disk(root: Path) -> tuple[list[_Pair], ProblemList]:
    """Pair the files in imagesTr and labelsTr that share their name; the others are problems."""
    images = {path.name: path for path in list_volumes(root / "imagesTr")}
    labels = {path.name: path for path in list_volumes(root / "labelsTr")}
    names, problems = pair_ids(images, labels, root / "imagesTr", root / "labelsTr")
    named = ProblemList(replace(problem, case_id=strip_suffix(problem.case_id)) for problem in problems)
    return [_Pair(strip_suffix(name), images[name], labels[name]) for name in names], named


def _usable_pairs(pairs: list[_Pair]) -> tuple[list[_Pair], ProblemList]:
    """Keep the pairs whose id is usable and unique and whose two files exist; every broken rule is a problem."""
    groups: dict[str, list[_Pair]] = defaultdict(list)
    for pair in pairs:
        groups[pair.case_id.casefold()].append(pair)
    usable, problems = [], ProblemList()
    for group in groups.values():
        first = group[0]
        broken = id_problems(first.case_id, [pair.image for pair in group])
        with broken.collecting(first.case_id):
            _check_listed_file("image", first.image)
        with broken.collecting(first.case_id):
            _check_listed_file("label", first.label)
        problems += broken
        if not broken:
            usable.append(first)
    return usable, problems


def _check_listed_file(kind: Literal["image", "label"], path: Path) -> None:
    if not path.is_file():
        message = f"dataset.json lists this {kind}, but there is no such file"
        remedy = "restore the file, or take the case out of dataset.json"
        raise broken_rule(f"{kind}-missing", path, message, remedy)


def _unlisted(root: Path, pairs: list[_Pair]) -> ProblemList:
    """Collect images without labels, and the reverse, that lie beside the listed files."""
    listed = {path.name for pair in pairs for path in (pair.image, pair.label)}
    images = {path.name: path for path in list_volumes(root / "imagesTr") if path.name not in listed}
    labels = {path.name: path for path in list_volumes(root / "labelsTr") if path.name not in listed}
    complete, problems = pair_ids(images, labels, root / "imagesTr", root / "labelsTr")
    if complete:
        names = ", ".join(complete[:10])
        logger.warning("%s: dataset.json leaves out %d complete cases: %s", root, len(complete), names)
    return ProblemList(
        replace(p, message=f"{p.message}, and not listed in dataset.json", case_id=strip_suffix(p.case_id))
        for p in problems
    )
