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

from data_pipelines.errors import ProblemList, broken_rule
from data_pipelines.volumes.cases import Case, Dataset
from data_pipelines.volumes.sources.declarations import (
    Declared,
    check_file_ending,
    check_listed_file,
    dataset_metadata,
    declared_channels,
    declared_labels,
    listed_file,
    read_dataset_json,
)
from data_pipelines.volumes.sources.names import (
    case_id_of,
    check_not_empty,
    find_splits,
    id_problems,
    list_volumes,
    pair_ids,
    read_subjects,
    skipped_files,
    subject_of,
    unique_ids,
    without,
)
from data_pipelines.volumes.sources.regions import labels_of
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
        check_file_ending(declared, root)
        check_not_empty(root / "imagesTr", {pair.case_id: pair for pair in pairs})
    subjects = read_subjects(root)
    cases = [Case(p.case_id, (str(p.image),), str(p.label), subject_of(p.case_id, subjects)) for p in usable]
    return Dataset(
        name=str(declared.get("name") or root.resolve().name),
        cases=tuple(sorted(cases, key=lambda case: case.case_id)),
        labels=labels_of(spec, lambda: declared_labels(declared, root)),
        channels=declared_channels(declared, spec, root),
        problems=tuple(problems),
        splits_path=find_splits(root),
        metadata=dataset_metadata(declared),
        notices=skipped_files(root / "imagesTr", root / "labelsTr"),
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
    case_id = case_id_of(Path(entry["image"]))
    image, label = (listed_file(root, case_id, entry[key]) for key in ("image", "label"))
    return _Pair(case_id, image, label)


def _pairs_on_disk(root: Path) -> tuple[list[_Pair], ProblemList]:
    """Pair the files in imagesTr and labelsTr that share their name, whatever their suffix; the others are problems."""
    images, problems = unique_ids(list_volumes(root / "imagesTr"))
    labels, label_problems = unique_ids(list_volumes(root / "labelsTr"))
    problems += label_problems
    ids, unpaired = pair_ids(images, labels, root / "imagesTr", root / "labelsTr")
    problems += without(unpaired, [problem.case_id for problem in problems])
    return [_Pair(case_id, images[case_id], labels[case_id]) for case_id in ids], problems


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
            check_listed_file("image", first.image)
        with broken.collecting(first.case_id):
            check_listed_file("label", first.label)
        problems += broken
        if not broken:
            usable.append(first)
    return usable, problems


def _unlisted(root: Path, pairs: list[_Pair]) -> ProblemList:
    """Collect images without labels, and the reverse, that lie beside the listed files."""
    listed = {path.name for pair in pairs for path in (pair.image, pair.label)}
    images = {case_id_of(path): path for path in list_volumes(root / "imagesTr") if path.name not in listed}
    labels = {case_id_of(path): path for path in list_volumes(root / "labelsTr") if path.name not in listed}
    complete, problems = pair_ids(images, labels, root / "imagesTr", root / "labelsTr")
    if complete:
        names = ", ".join(complete[:10])
        logger.warning("%s: dataset.json leaves out %d complete cases: %s", root, len(complete), names)
    return ProblemList(replace(p, message=f"{p.message}, and not listed in dataset.json") for p in problems)
