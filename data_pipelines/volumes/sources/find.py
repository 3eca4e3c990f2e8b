"""A raw folder in any of the known layouts to its cases, before a voxel is read."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from data_pipelines.errors import ConfigError, broken_rule, name_some
from data_pipelines.notices import Notice, notice
from data_pipelines.volumes.cases import Dataset
from data_pipelines.volumes.leaks import assign_subjects
from data_pipelines.volumes.phantoms import PHANTOM_VERSION, write_phantoms
from data_pipelines.volumes.scenes import SCENE_VERSION, write_scenes
from data_pipelines.volumes.sources import decathlon, dicom, folders, nnunet
from data_pipelines.volumes.sources.declarations import read_dataset_json
from data_pipelines.volumes.sources.names import case_id_of, list_volumes, read_subjects
from data_pipelines.volumes.specs import DataSpec

_FINDERS: dict[str, Callable[[Path, DataSpec], Dataset]] = {
    "decathlon": decathlon.find_cases,
    "nnunet": nnunet.find_cases,
    "folders": folders.find_cases,
    "dicom": dicom.find_cases,
}

_LOOKED_FOR = """\
  decathlon  dataset.json, imagesTr/NAME.nii.gz, labelsTr/NAME.nii.gz
  nnunet     dataset.json, imagesTr/NAME_0000.nii.gz, labelsTr/NAME.nii.gz
  folders    images/NAME.png, masks/NAME.png or labels/NAME.png (any format)
  dicom      NAME/image/ with the slices of one series, NAME/label.nii.gz"""


def find_cases(spec: DataSpec, work_dir: str | os.PathLike[str] | None = None) -> Dataset:
    """Find the cases of ``spec.root``; what file names alone show to be wrong is in ``Dataset.problems``.

    ``layout: phantoms`` or ``scenes`` writes its data set under ``work_dir`` first, or finds it there. Raises
    ConfigError where the folder is missing or of no known layout, and DataError where its declarations (classes,
    channels) are unusable.
    """
    if spec.layout in GENERATED:
        if work_dir is None:
            raise ValueError(f"layout `{spec.layout}` needs a work_dir to write the generated data set into")
        return GENERATED[spec.layout](spec, Path(work_dir))
    if spec.layout not in ("auto", *_FINDERS):
        known = ", ".join(("auto", *_FINDERS, *GENERATED))
        raise ConfigError(f"data.layout: unknown layout {spec.layout!r}; choose one of {known}")
    root = Path(spec.root)
    if not spec.root:
        raise ConfigError("data.root: name the folder of the raw data set, or choose data.layout=phantoms")
    if not root.is_dir():
        raise ConfigError(f"data.root: there is no folder {root}; correct the path")
    layout = recognise_layout(root) if spec.layout == "auto" else spec.layout
    if layout == "folders" and not _has_image_folders(root):
        raise ConfigError(
            f"{root}: layout `folders` needs images/ and masks/ (or labels/). It holds: {_listing(root)}\n"
            "  -> correct data.root, or name another data.layout"
        )
    found = _FINDERS[layout](root, spec)
    if spec.subject_pattern:
        return assign_subjects(found, spec.subject_pattern)
    return replace(found, notices=(*found.notices, *_strange_subjects(root, found)))


def _strange_subjects(root: Path, dataset: Dataset) -> Iterator[Notice]:
    """Notice ids in ``subjects.json`` that are no case. Raises DataError where none is one: it would be of no use."""
    subjects = read_subjects(root)
    known = {case.case_id for case in dataset.cases} | {problem.case_id for problem in dataset.problems}
    strangers = sorted(set(subjects) - known)
    if not strangers:
        return
    path, names = root / "subjects.json", name_some(strangers, 3)
    if len(strangers) == len(subjects) and dataset.cases:
        message = f"none of its {len(strangers)} ids is a case: {names}"
        raise broken_rule("bad-subjects", path, message, f"name cases as they are: {dataset.cases[0].case_id}")
    yield notice("subject-unknown", path, f"names {len(strangers)} ids that are no case: {names}")


def recognise_layout(root: Path) -> str:
    """Return the name of the layout of ``root``. Raises ConfigError listing the known layouts where there is none."""
    if (root / "dataset.json").is_file() and nnunet.is_listed(read_dataset_json(root)):
        return "nnunet"
    if (root / "dataset.json").is_file() and (root / "imagesTr").is_dir():
        return "nnunet" if _is_nnunet(root) else "decathlon"
    if _has_image_folders(root):
        return "folders"
    if any((folder / "image").is_dir() for folder in root.iterdir() if folder.is_dir()):
        return "dicom"
    raise ConfigError(
        f"{root}: the folder has none of the known layouts. It holds: {_listing(root)}. Looked for:\n{_LOOKED_FOR}\n"
        "  -> correct data.root, or name the layout in data.layout"
    )


def _is_nnunet(root: Path) -> bool:
    """Tell nnU-Net from the Decathlon by channel numbers: NAME_0000 has a label NAME, or one of the same name."""
    if "channel_names" in read_dataset_json(root):
        return True
    stems = [case_id_of(path) for path in list_volumes(root / "imagesTr")]
    labels = {case_id_of(path) for path in list_volumes(root / "labelsTr")}
    numbered = [stem for stem in stems if nnunet.CHANNEL_SUFFIX.fullmatch(stem) and stem not in labels]
    return len(numbered) > len(stems) / 2


def _has_image_folders(root: Path) -> bool:
    return (root / "images").is_dir() and any((root / name).is_dir() for name in folders.LABEL_FOLDERS)


def _listing(root: Path) -> str:
    names = sorted(entry.name + ("/" if entry.is_dir() else "") for entry in root.iterdir())
    return name_some(names, 12) or "nothing"


def _find_phantoms(spec: DataSpec, work_dir: Path) -> Dataset:
    # The name carries all that the content depends on, so that other settings never meet this folder.
    name = f"phantoms-v{PHANTOM_VERSION}-{spec.num_phantoms}-seed{spec.phantom_seed}{'-2d' if spec.ndim == 2 else ''}"
    return nnunet.find_cases(write_phantoms(work_dir / name, spec.num_phantoms, spec.phantom_seed, spec.ndim), spec)


def _find_scenes(spec: DataSpec, work_dir: Path) -> Dataset:
    if spec.ndim != 2:
        raise ConfigError("data.layout: scenes are images; set data.ndim to 2")
    root = work_dir / f"scenes-v{SCENE_VERSION}-{spec.num_phantoms}-seed{spec.phantom_seed}"
    if not root.exists():
        write_scenes(root, spec.num_phantoms, spec.phantom_seed)
    return folders.find_cases(root, spec)


GENERATED: dict[str, Callable[[DataSpec, Path], Dataset]] = {"phantoms": _find_phantoms, "scenes": _find_scenes}
"""Layouts that generate a data set."""
