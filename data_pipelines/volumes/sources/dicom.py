"""DICOM series as images, with a label each; one folder per case.

ROOT/CASE/image/*            the slices of one series, any file names
ROOT/CASE/label.nii.gz       (or .nii, .nrrd, .mha) on the grid of the series: axis 0 along the rows' columns, axis 1
                             down the rows, axis 2 along the slice normal, as ITK and 3D Slicer write it
ROOT/CASE/label.dcm          or a DICOM segmentation or structure set, whose names are those of the classes
ROOT/classes.json            {"background": 0, "liver": 1}; or give data.classes
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from data_pipelines.errors import DataError, ProblemList, broken_rule
from data_pipelines.files.reading import is_file_or_broken_link, named_errors
from data_pipelines.notices import Notice, notice
from data_pipelines.volumes.cases import Case, Dataset
from data_pipelines.volumes.classes import Labels
from data_pipelines.volumes.formats.slices import list_slices, read_dataset
from data_pipelines.volumes.sources.labels import read_labels
from data_pipelines.volumes.sources.names import (
    check_name,
    check_not_empty,
    check_unique,
    find_splits,
    id_problems,
    normal,
    read_json,
    read_subjects,
    subject_of,
)
from data_pipelines.volumes.sources.regions import labels_of
from data_pipelines.volumes.specs import DataSpec

LABEL_NAMES = ("label.nii.gz", "label.nii", "label.nrrd", "label.mha", "label.dcm")


def find_cases(root: Path, spec: DataSpec) -> Dataset:
    """Find the case folders under ``root``; the slices themselves are read when a case is checked."""
    groups: dict[str, list[Path]] = defaultdict(list)
    for folder in sorted(root.iterdir()):
        if folder.is_dir() and not folder.name.startswith("."):
            groups[normal(folder.name).casefold()].append(folder)
    subjects = read_subjects(root)
    folders, problems = [], ProblemList()
    for group in groups.values():
        broken = _folder_problems(group)
        problems += broken
        if not broken:
            folders.append(group[0])
    patients, notices = _patients(folders)
    cases = [_build_case(each, subject_of(normal(each.name), subjects, patients.get(each, ""))) for each in folders]
    with problems.collecting():
        check_not_empty(root, groups)
    return Dataset(
        name=root.resolve().name,
        cases=tuple(sorted(cases, key=lambda case: case.case_id)),
        labels=labels_of(spec, lambda: _read_labels(root)),
        channels=spec.channels or ("image",),
        problems=tuple(problems),
        splits_path=find_splits(root),
        notices=notices,
    )


def _build_case(folder: Path, subject: str) -> Case:
    return Case(normal(folder.name), (str(folder / "image"),), str(_labels(folder)[0]), subject)


def _patients(folders: Sequence[Path]) -> tuple[dict[Path, str], tuple[Notice, ...]]:
    """Return a name for the patient of each case whose first slice states one: a hash, since names go into indexes.

    One of more than half of the cases is taken for a placeholder, as some anonymisers write it for everybody.
    """
    stated = {folder: patient for folder in folders if (patient := _patient_id(folder / "image"))}
    placeholder, count = Counter(stated.values()).most_common(1)[0] if stated else ("", 0)
    if 2 * count <= len(folders):
        placeholder = ""
    patients = {
        folder: f"patient-{hashlib.sha256(patient.encode()).hexdigest()[:12]}"
        for folder, patient in stated.items()
        if patient != placeholder
    }
    if not placeholder or not patients:
        return patients, ()
    message = (
        f"{count} of {len(folders)} cases have one PatientID, taken for a placeholder: each is a subject of its own"
    )
    return patients, (notice("patient-id-shared", folders[0].parent, message),)


def _patient_id(folder: Path) -> str:
    """Read the PatientID of a series; empty where there is none, or it cannot be read: that is reported later."""
    with suppress(DataError, IndexError):
        return str(read_dataset(list_slices(folder)[0]).get("PatientID") or "").strip()
    return ""


def _folder_problems(group: list[Path]) -> ProblemList:
    """Collect the problems of the folders of one case."""
    folder, case_id = group[0], normal(group[0].name)
    problems = id_problems(case_id, group)
    with problems.collecting(case_id):
        _check_image_folder(folder / "image")
    with problems.collecting(case_id):
        _check_label(folder)
    return problems


def _check_image_folder(folder: Path) -> None:
    if not folder.is_dir():
        remedy = "put the slices of one series there, or move the folder away"
        raise broken_rule("image-missing", folder, "the case has no such folder", remedy)
    with named_errors(folder):
        for file in list_slices(folder):
            check_name(file.name, file)


def _check_label(folder: Path) -> None:
    labels = _labels(folder)
    if not labels:
        remedy = "add the label, or move the folder away"
        raise broken_rule("label-missing", folder / LABEL_NAMES[0], "the case has no label", remedy)
    check_unique(labels)


def _labels(folder: Path) -> list[Path]:
    return [folder / name for name in LABEL_NAMES if is_file_or_broken_link(folder / name)]


def _read_labels(root: Path) -> Labels:
    """Read the classes from ``classes.json``. Raises DataError where it does not name them."""
    path = root / "classes.json"
    if path.is_file():
        return read_labels(read_json(path), path)
    remedy = 'name the classes there ({"background": 0, "liver": 1}) or in data.classes'
    raise broken_rule("classes-missing", path, "missing, and a DICOM folder does not declare its classes", remedy)
