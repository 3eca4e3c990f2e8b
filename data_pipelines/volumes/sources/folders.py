"""Plain folders.

ROOT/images/NAME.png        any format that is read
ROOT/masks/NAME.png         or ROOT/labels/NAME.png; the same NAME, any suffix
ROOT/texts/NAME.txt         optional: a text about the image, a further input of multimodal networks
ROOT/sounds/NAME.wav        optional: a sound, likewise
ROOT/classes.json           optional: {"background": 0, "road": 1}; without it one class, ``foreground`` = 1
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from data_pipelines.errors import DataError
from data_pipelines.files.reading import is_file_or_broken_link
from data_pipelines.notices import Notice, notice
from data_pipelines.volumes.cases import Case, Dataset
from data_pipelines.volumes.classes import Labels
from data_pipelines.volumes.files import read_num_channels
from data_pipelines.volumes.sources.labels import read_labels
from data_pipelines.volumes.sources.names import (
    SKIPPED_FOLDER,
    check_not_empty,
    find_splits,
    folders_within,
    list_volumes,
    normal,
    pair_ids,
    read_json,
    read_subjects,
    skipped_files,
    subject_of,
    unique_ids,
    without,
)
from data_pipelines.volumes.sources.regions import labels_of
from data_pipelines.volumes.specs import DataSpec

LABEL_FOLDERS = ("masks", "labels")
CLASSES_FILE = "classes.json"
ONE_CLASS = {"background": 0, "foreground": 1}
"""Classes where nothing declares any."""
BESIDE = {"texts": ".txt", "sounds": ".wav"}
"""Folders of further inputs, and how their files end."""


def find_cases(root: Path, spec: DataSpec) -> Dataset:
    """Find the images of ``ROOT/images`` with their labels; names that break a rule are in ``problems``."""
    label_folder = next(root / name for name in LABEL_FOLDERS if (root / name).is_dir())
    images, problems = unique_ids(list_volumes(root / "images"))
    labels, label_problems = unique_ids(list_volumes(label_folder))
    problems += label_problems
    ids, unpaired = pair_ids(images, labels, root / "images", label_folder)
    problems += without(unpaired, [problem.case_id for problem in problems])
    with problems.collecting():
        check_not_empty(root / "images", images)
    subjects = read_subjects(root)
    beside = {name: _files_beside(root / name, ending) for name, ending in BESIDE.items()}
    cases = tuple(
        Case(
            case_id=i,
            images=(str(images[i]),),
            label=str(labels[i]),
            subject=subject_of(i, subjects),
            text=beside["texts"].get(i, ""),
            sound=beside["sounds"].get(i, ""),
        )
        for i in ids
    )
    return Dataset(
        name=root.resolve().name,
        cases=cases,
        labels=labels_of(spec, lambda: _read_labels(root)),
        channels=spec.channels or _guess_channels(cases, spec),
        problems=tuple(problems),
        splits_path=find_splits(root),
        notices=(*skipped_files(root / "images", label_folder), *_missing_beside(root, beside, ids)),
    )


def _files_beside(folder: Path, ending: str) -> dict[str, str]:
    """Return case id to file, of the files of an ending in a folder; none where there is no folder."""
    files = (
        path for path in sorted(folder.glob("*")) if path.suffix.lower() == ending and is_file_or_broken_link(path)
    )
    return {normal(path.stem): str(path) for path in files}


def _missing_beside(root: Path, beside: dict[str, dict[str, str]], ids: Sequence[str]) -> Iterator[Notice]:
    """Yield a notice for each case without a text or sound where others have one, and for each that has no case.

    Folders beside them are noticed, too.
    """
    for name, files in beside.items():
        for folder in folders_within(root / name):
            yield notice("skipped-file", folder, SKIPPED_FOLDER)
        for case_id in sorted(set(ids) - files.keys() if files else ()):
            yield notice("missing-modality", root / name, f"{case_id} has none: it counts as absent")
        for case_id in sorted(files.keys() - set(ids)):
            yield notice("skipped-file", files[case_id], "there is no such case: the file is not read")


def _read_labels(root: Path) -> Labels:
    path = root / CLASSES_FILE
    return read_labels(read_json(path) if path.is_file() else ONE_CLASS, path)


def _guess_channels(cases: tuple[Case, ...], spec: DataSpec) -> tuple[str, ...]:
    """Name the channels by the header of the first readable image: colour or grey."""
    for case in cases:
        try:
            count = read_num_channels(case.images[0], spec.max_voxels)
        except DataError:
            continue  # reported when the case is checked
        return ("red", "green", "blue") if count == 3 else tuple(f"channel_{index}" for index in range(count))
    return ("channel_0",)
