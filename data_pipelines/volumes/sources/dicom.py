"""DICOM series as images, NIfTI as labels; one folder per case.

ROOT/CASE/image/*            the slices of one series, any file names
ROOT/CASE/label.nii.gz       (or label.nii) on the grid of the series: axis 0 along the rows' columns, axis 1 down
                             the rows, axis 2 along the slice normal, as ITK and 3D Slicer write it
ROOT/classes.json            {"background": 0, "liver": 1}; or give data.classes
"""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

from data_pipelines.volumes.cases import Case, Dataset
from data_pipelines.errors import Problem, UserError
from data_pipelines.volumes.sources.folders import check_classes, duplicate_problem, empty_problem, find_splits, id_problems, read_json, read_subjects, subject_of
from data_pipelines.volumes.specs import DataSpec

LABEL_NAMES = ("label.nii.gz", "label.nii")


def find_cases(root: Path, spec: DataSpec) -> Dataset:
    """The case folders under ``root``; the slices themselves are looked at when a case is checked."""
    groups: dict[str, list[Path]] = defaultdict(list)
    for folder in sorted(root.iterdir()):
        if folder.is_dir() and not folder.name.startswith("."):
            groups[folder.name.casefold()].append(folder)
    subjects = read_subjects(root)
    cases, problems = [], []
    for group in groups.values():
        broken, case_id = _folder_problems(group), group[0].name
        problems += broken
        if not broken:
            cases.append(
                Case(case_id, (str(group[0] / "image"),), str(_label(group[0])), subject_of(case_id, subjects))
            )
    return Dataset(
        name=root.resolve().name,
        cases=tuple(sorted(cases, key=lambda case: case.case_id)),
        classes=_read_classes(root, spec),
        channels=spec.channels or ("image",),
        problems=(*problems, *empty_problem(root, groups)),
        splits_path=find_splits(root),
    )


def _folder_problems(group: list[Path]) -> list[Problem]:
    folder, case_id = group[0], group[0].name
    problems = id_problems(case_id, str(folder))
    if len(group) > 1:
        problems.append(duplicate_problem(case_id, [str(path) for path in group]))
    if not (folder / "image").is_dir():
        remedy = "put the slices of one series there, or move the folder away"
        problems.append(Problem("image-missing", str(folder / "image"), "the case has no such folder", remedy, case_id))
    if _label(folder) is None:
        remedy = "add the label, or move the folder away"
        problems.append(
            Problem("label-missing", str(folder / LABEL_NAMES[0]), "the case has no label", remedy, case_id)
        )
    elif all((folder / name).is_file() for name in LABEL_NAMES):
        problems.append(duplicate_problem(case_id, [str(folder / name) for name in LABEL_NAMES]))
    return problems


def _label(folder: Path) -> Path | None:
    return next((folder / name for name in LABEL_NAMES if (folder / name).is_file()), None)


def _read_classes(root: Path, spec: DataSpec) -> dict[str, int]:
    path = root / "classes.json"
    if spec.classes is not None:
        return check_classes(spec.classes, "data.classes")
    if path.is_file():
        return check_classes(read_json(path), str(path))
    raise UserError(f'{path}: missing; name the classes there ({{"background": 0, "liver": 1}}) or in data.classes')
