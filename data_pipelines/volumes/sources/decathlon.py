"""Medical Segmentation Decathlon folders.

ROOT/dataset.json           "training": [{"image": "./imagesTr/NAME.nii.gz", "label": "./labelsTr/NAME.nii.gz"}]
ROOT/imagesTr/NAME.nii.gz   several modalities are the fourth axis of one file
ROOT/labelsTr/NAME.nii.gz
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from data_pipelines.volumes.cases import Case, Dataset
from data_pipelines.errors import DataError, Problem, UserError
from data_pipelines.volumes.sources.folders import check_classes, duplicate_problem, empty_problem, find_splits, id_problems, list_volumes, pair_ids, read_json, read_subjects, subject_of
from data_pipelines.volumes.specs import DataSpec
from data_pipelines.volumes.files import strip_suffix

logger = logging.getLogger(__name__)


def find_cases(root: Path, spec: DataSpec) -> Dataset:
    """The cases that ``dataset.json`` lists, and a Problem for every file that breaks a rule by its name.

    Without a list the files of ``imagesTr`` and ``labelsTr`` are paired by name. An image or label that lies there
    unlisted and alone is a Problem; a complete pair left out of the list is the author's choice and only logged.
    """
    declared = read_dataset_json(root)
    entries, problems = _listed_pairs(root, declared) if declared.get("training") else _pairs_on_disk(root)
    pairs, pair_problems = _usable_pairs(entries)
    problems += pair_problems
    if declared.get("training"):
        problems += _unlisted(root, entries)
    subjects = read_subjects(root)
    cases = [Case(i, (str(image),), str(label), subject_of(i, subjects)) for i, (image, label) in pairs.items()]
    return Dataset(
        name=str(declared.get("name") or root.resolve().name),
        cases=tuple(sorted(cases, key=lambda case: case.case_id)),
        classes=declared_classes(declared, spec, root),
        channels=declared_channels(declared, spec, root),
        problems=(*problems, *empty_problem(root / "imagesTr", dict(entries))),
        splits_path=find_splits(root),
        metadata=dataset_metadata(declared),
    )


def _listed_pairs(root: Path, declared: Mapping[str, Any]) -> tuple[list[tuple[str, tuple[Path, Path]]], list[Problem]]:
    """(id, (image, label)) for each well-formed entry of ``training``."""
    pairs, problems = [], []
    source = str(root / "dataset.json")
    training = declared["training"] if isinstance(declared["training"], list) else [declared["training"]]
    for entry in training:
        if not isinstance(entry, dict) or not all(isinstance(entry.get(key), str) for key in ("image", "label")):
            message = f'an entry of "training" must be {{"image": ..., "label": ...}}, got {entry!r:.200}'
            problems.append(Problem("bad-entry", source, message, "correct the entry"))
            continue
        case_id = strip_suffix(Path(entry["image"]).name)
        if outside := [p for p in (entry["image"], entry["label"]) if Path(p).is_absolute() or ".." in Path(p).parts]:
            message = f"paths must lie inside the data set, got {outside[0]}"
            problems.append(Problem("path-outside", source, message, "write it relative to dataset.json", case_id))
            continue
        pairs.append((case_id, (root / entry["image"], root / entry["label"])))
    return pairs, problems


def _pairs_on_disk(root: Path) -> tuple[list[tuple[str, tuple[Path, Path]]], list[Problem]]:
    """(id, (image, label)) of the files in imagesTr and labelsTr that share their name."""
    images = {path.name: path for path in list_volumes(root / "imagesTr")}
    labels = {path.name: path for path in list_volumes(root / "labelsTr")}
    names, problems = pair_ids(images, labels, root / "imagesTr", root / "labelsTr", set())
    named = [replace(problem, case_id=strip_suffix(problem.case_id)) for problem in problems]
    return [(strip_suffix(name), (images[name], labels[name])) for name in names], named


def _usable_pairs(
    entries: list[tuple[str, tuple[Path, Path]]],
) -> tuple[dict[str, tuple[Path, Path]], list[Problem]]:
    """The entries whose id is usable and unique and whose two files exist; a Problem for each broken rule."""
    groups: dict[str, list[tuple[str, tuple[Path, Path]]]] = defaultdict(list)
    for case_id, pair in entries:
        groups[case_id.casefold()].append((case_id, pair))
    usable, problems = {}, []
    for group in groups.values():
        case_id, pair = group[0]
        broken = id_problems(case_id, str(pair[0]))
        if len(group) > 1:
            broken.append(duplicate_problem(case_id, [str(image) for _, (image, _) in group]))
        broken += [
            Problem(rule, str(path), f"dataset.json lists this {kind}, but there is no such file", _MISSING, case_id)
            for rule, kind, path in zip(("image-missing", "label-missing"), ("image", "label"), pair, strict=True)
            if not path.is_file()
        ]
        problems += broken
        if not broken:
            usable[case_id] = pair
    return usable, problems


_MISSING = "restore the file, or take the case out of dataset.json"


def _unlisted(root: Path, entries: list[tuple[str, tuple[Path, Path]]]) -> list[Problem]:
    """Images without labels, and the reverse, that lie beside the listed files."""
    listed = {path.name for _, pair in entries for path in pair}
    images = {path.name: path for path in list_volumes(root / "imagesTr") if path.name not in listed}
    labels = {path.name: path for path in list_volumes(root / "labelsTr") if path.name not in listed}
    pairs, problems = pair_ids(images, labels, root / "imagesTr", root / "labelsTr", set())
    if pairs:
        logger.warning("%s: dataset.json leaves out %d complete cases: %s", root, len(pairs), ", ".join(pairs[:10]))
    return [
        Problem(p.rule, p.path, f"{p.message}, and not listed in dataset.json", p.remedy, strip_suffix(p.case_id))
        for p in problems
    ]


# --- dataset.json, shared with nnU-Net -------------------------------------------------------------------------------


def read_dataset_json(root: Path) -> dict[str, Any]:
    """The content of ``ROOT/dataset.json``; UserError where it is missing or no JSON object."""
    path = root / "dataset.json"
    if not path.is_file():
        raise UserError(f"{path}: missing; the Decathlon and nnU-Net layouts declare classes and channels there")
    declared = read_json(path)
    if not isinstance(declared, dict):
        raise UserError(f"{path}: must hold a JSON object, got {type(declared).__name__}")
    return declared


def declared_classes(declared: Mapping[str, Any], spec: DataSpec, root: Path) -> dict[str, int]:
    """Class name -> value, from the spec or from ``labels`` (name -> value, or the older value -> name)."""
    if spec.classes is not None:
        return check_classes(spec.classes, "data.classes")
    source, labels = str(root / "dataset.json"), declared.get("labels")
    if not isinstance(labels, dict) or not labels:
        message = f'"labels" must map class names to values, got {labels!r:.200}'
        raise DataError([Problem("bad-classes", source, message, "correct dataset.json, or give data.classes")])
    if regions := [name for name, value in labels.items() if isinstance(value, list)]:
        message = f"regions (classes of several label values) are not supported: {', '.join(regions)}"
        raise DataError([Problem("region-labels", source, message, "give every class one value of its own")])
    if "ignore" in labels:
        message = 'the "ignore" label of nnU-Net (unlabelled voxels) is not supported'
        raise DataError([Problem("ignore-label", source, message, "leave out partly labelled cases")])
    if all(str(key).isdigit() for key in labels):
        names = [str(name) for name in labels.values()]
        if len(set(names)) < len(names):
            message = f"two classes share a name: {names}"
            raise DataError([Problem("bad-classes", source, message, "give every class a name of its own")])
        return check_classes({str(name): int(value) for value, name in labels.items()}, source)
    whole = {name: int(v) if isinstance(v, str) and v.isdigit() else v for name, v in labels.items()}
    return check_classes(whole, source)


def declared_channels(declared: Mapping[str, Any], spec: DataSpec, root: Path) -> tuple[str, ...]:
    """Channel names, from the spec or from ``channel_names`` (before nnU-Net 2: ``modality``)."""
    if spec.channels:
        return spec.channels
    names = declared.get("channel_names", declared.get("modality"))
    numbered = isinstance(names, dict) and sorted(names) == sorted(str(index) for index in range(len(names)))
    if not names or not numbered:
        message = f'"channel_names" must be {{"0": name, "1": name, ...}}, got {names!r:.200}'
        remedy = "correct dataset.json, or give data.channels"
        raise DataError([Problem("bad-channels", str(root / "dataset.json"), message, remedy)])
    return tuple(str(names[str(index)]) for index in range(len(names)))


def dataset_metadata(declared: Mapping[str, Any]) -> dict[str, str]:
    """What the data set says about itself: description, reference, licence, release."""
    keys = ("description", "reference", "licence", "license", "release")
    return {key: str(declared[key]) for key in keys if declared.get(key)}
