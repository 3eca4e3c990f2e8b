"""Plain folders.

ROOT/images/NAME.png        any format that is read
ROOT/masks/NAME.png         or ROOT/labels/NAME.png; the same NAME, any suffix
ROOT/classes.json           optional: {"background": 0, "road": 1}; without it one class, ``foreground`` = 1
"""

from __future__ import annotations

from pathlib import Path

from data_pipelines.errors import DataError
from data_pipelines.volumes.cases import Case, Dataset
from data_pipelines.volumes.files import read_num_channels
from data_pipelines.volumes.sources.names import (
    check_classes,
    check_not_empty,
    find_splits,
    list_volumes,
    pair_ids,
    read_json,
    read_subjects,
    skipped_files,
    subject_of,
    unique_ids,
    without,
)
from data_pipelines.volumes.specs import DataSpec

LABEL_FOLDERS = ("masks", "labels")


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
    cases = tuple(Case(i, (str(images[i]),), str(labels[i]), subject_of(i, subjects)) for i in ids)
    return Dataset(
        name=root.resolve().name,
        cases=cases,
        classes=_read_classes(root, spec),
        channels=spec.channels or _guess_channels(cases, spec),
        problems=tuple(problems),
        splits_path=find_splits(root),
        notices=skipped_files(root / "images", label_folder),
    )


def _read_classes(root: Path, spec: DataSpec) -> dict[str, int]:
    path = root / "classes.json"
    if spec.classes is not None:
        return check_classes(spec.classes, "data.classes")
    if path.is_file():
        return check_classes(read_json(path), path)
    return {"background": 0, "foreground": 1}


def _guess_channels(cases: tuple[Case, ...], spec: DataSpec) -> tuple[str, ...]:
    """Name the channels by the header of the first readable image: colour or grey."""
    for case in cases:
        try:
            count = read_num_channels(case.images[0], spec.max_voxels)
        except DataError:
            continue  # reported when the case is checked
        return ("red", "green", "blue") if count == 3 else tuple(f"channel_{index}" for index in range(count))
    return ("channel_0",)
