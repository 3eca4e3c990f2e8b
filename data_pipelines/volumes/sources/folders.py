"""Plain folders, and the rules about file names that every layout shares.

ROOT/images/NAME.png        PNG, JPEG, TIFF (2-D) or NIfTI
ROOT/masks/NAME.png         or ROOT/labels/NAME.png; the same NAME, any suffix
ROOT/classes.json           optional: {"background": 0, "road": 1}; without it one class, ``foreground`` = 1
ROOT/subjects.json          optional, any layout: {"NAME": "subject"}; cases of a subject stay on one side of a split
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from data_pipelines.volumes.cases import Case, Dataset
from data_pipelines.errors import DataError, Problem, UserError
from data_pipelines.volumes.specs import DataSpec
from data_pipelines.files.reading import VolumeError
from data_pipelines.volumes.files import is_volume_name, read_num_channels, strip_suffix

LABEL_FOLDERS = ("masks", "labels")

# Case ids become members of a tar archive: 80 bytes leave room for the suffixes within the 100 that every tar reader
# knows. Dots within an id are fine, sharding escapes them.
MAX_ID_BYTES = 80
_BAD_IN_ID = re.compile(r"[/\\:*?\"<>|\x00-\x1f\x7f]")
_MAX_JSON_BYTES = 1 << 28
_BIDS_SUBJECT = re.compile(r"sub-[A-Za-z0-9]+")


def find_cases(root: Path, spec: DataSpec) -> Dataset:
    """The images of ``ROOT/images`` with their labels; everything wrong by name is in ``problems``."""
    label_folder = next(root / name for name in LABEL_FOLDERS if (root / name).is_dir())
    images, image_problems = unique_ids(list_volumes(root / "images"))
    labels, label_problems = unique_ids(list_volumes(label_folder))
    ambiguous = {problem.case_id for problem in (*image_problems, *label_problems)}
    ids, problems = pair_ids(images, labels, root / "images", label_folder, ambiguous)
    subjects = read_subjects(root)
    cases = tuple(Case(i, (str(images[i]),), str(labels[i]), subject_of(i, subjects)) for i in ids)
    problems = [*image_problems, *label_problems, *problems, *empty_problem(root / "images", images)]
    return Dataset(
        name=root.resolve().name,
        cases=cases,
        classes=_read_classes(root, spec),
        channels=spec.channels or _guess_channels(cases, spec),
        problems=tuple(problems),
        splits_path=find_splits(root),
    )


def _read_classes(root: Path, spec: DataSpec) -> dict[str, int]:
    path = root / "classes.json"
    if spec.classes is not None:
        return check_classes(spec.classes, "data.classes")
    if path.is_file():
        return check_classes(read_json(path), str(path))
    return {"background": 0, "foreground": 1}


def _guess_channels(cases: tuple[Case, ...], spec: DataSpec) -> tuple[str, ...]:
    """Channel names by the header of the first readable image: colour or grey."""
    for case in cases:
        try:
            count = read_num_channels(case.images[0], spec.max_voxels)
        except VolumeError:
            continue  # named when the case is checked
        return ("red", "green", "blue") if count == 3 else tuple(f"channel_{index}" for index in range(count))
    return ("channel_0",)


# --- shared by the layouts -------------------------------------------------------------------------------------------


def list_volumes(folder: Path) -> list[Path]:
    """Files of a known format in ``folder``, sorted by name; hidden ones (``._NAME`` of macOS archives) are no data."""
    if not folder.is_dir():
        return []
    return sorted(entry for entry in folder.iterdir() if is_volume_name(entry.name) and entry.is_file())


def unique_ids(paths: Iterable[Path]) -> tuple[dict[str, Path], list[Problem]]:
    """Case id -> file for ids that are usable and unambiguous; a Problem for each of the others.

    Two files clash when their names differ in suffix or letter case only: not every file system can hold both.
    """
    groups: dict[str, list[Path]] = defaultdict(list)
    for path in paths:
        groups[strip_suffix(path.name).casefold()].append(path)
    found: dict[str, Path] = {}
    problems: list[Problem] = []
    for group in groups.values():
        case_id = strip_suffix(group[0].name)
        broken = id_problems(case_id, str(group[0]))
        if len(group) > 1:
            broken.append(duplicate_problem(case_id, [str(path) for path in group]))
        problems += broken
        if not broken:
            found[case_id] = group[0]
    return found, problems


def duplicate_problem(case_id: str, paths: list[str]) -> Problem:
    """Several files (or folders) stand for one case."""
    message = f"{len(paths)} files stand for one case: {', '.join(Path(path).name for path in paths)}"
    return Problem("duplicate-id", paths[0], message, "keep one of them, or rename the others", case_id)


def id_problems(case_id: str, path: str) -> list[Problem]:
    """What keeps ``case_id`` from being the key of a tar member, if anything."""
    reason = ""
    if not case_id.strip():
        reason = "is empty"
    elif case_id != case_id.strip() or case_id.startswith((".", "-", "~")):
        reason = "begins with '.', '-' or '~', or begins or ends with a space"
    elif match := _BAD_IN_ID.search(case_id):
        reason = f"holds {match.group()!r}; path separators, wildcards and control characters are not allowed"
    elif len(case_id.encode("utf-8", "surrogateescape")) > MAX_ID_BYTES:
        reason = f"is longer than {MAX_ID_BYTES} bytes"
    if not reason:
        return []
    remedy = "rename the files of the case (letters, digits, '_' and '-')"
    return [Problem("bad-case-id", path, f"the case id {case_id!r} {reason}", remedy, case_id)]


def pair_ids(
    images: Mapping[str, Path | tuple[str, ...]],
    labels: Mapping[str, Path],
    image_folder: Path,
    label_folder: Path,
    skip: set[str],
) -> tuple[list[str], list[Problem]]:
    """Sorted ids that have an image and a label, and a Problem for each that has one only.

    Ids in ``skip`` have been named already and are left out of the second list.
    """
    folded = {case_id.casefold() for case_id in skip}
    problems = []
    for case_id in sorted(images.keys() ^ labels.keys()):
        if case_id.casefold() in folded:
            continue
        if case_id in images:
            message = f"image without a label in {label_folder.name}/"
            files = images[case_id]
            path = files[0] if isinstance(files, tuple) else str(files)
            problems.append(Problem("label-missing", path, message, _ORPHAN, case_id))
        else:
            message = f"label without an image in {image_folder.name}/"
            problems.append(Problem("image-missing", str(labels[case_id]), message, _ORPHAN, case_id))
    return sorted(images.keys() & labels.keys()), problems


_ORPHAN = "add the missing file under the same name, or move this one out of the folder"


def empty_problem(folder: Path, images: Mapping[str, object]) -> list[Problem]:
    """A Problem when there is no image at all."""
    if images:
        return []
    remedy = "check data.root, and that the data set has been unpacked"
    return [Problem("empty-folder", str(folder), "no usable image in this folder", remedy)]


def check_classes(declared: Any, where: str) -> dict[str, int]:
    """Class name -> value, sorted by value; raises DataError unless the values are 0..K-1, background first."""
    remedy = "number the classes 0..K-1 without holes, 0 being the background, and rewrite the labels to match"
    if not isinstance(declared, Mapping) or not all(isinstance(n, str) and n for n in declared):
        raise DataError([Problem("bad-classes", where, f"class names and values are due, got {declared!r}", remedy)])
    values = list(declared.values())
    if not all(isinstance(value, int) and not isinstance(value, bool) for value in values):
        raise DataError([Problem("bad-classes", where, f"class values must be whole numbers, got {values}", remedy)])
    if sorted(values) != list(range(len(values))) or len(values) < 2:
        message = f"class values must be 0..K-1 without holes, K >= 2; got {sorted(values)}"
        raise DataError([Problem("class-holes", where, message, remedy)])
    return dict(sorted(declared.items(), key=lambda item: item[1]))


def read_json(path: Path) -> Any:
    """The content of a JSON file; UserError where it is too large or not JSON."""
    if path.stat().st_size > _MAX_JSON_BYTES:
        raise UserError(f"{path}: {path.stat().st_size} bytes are too many for a JSON file; is it the right file?")
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: is not valid JSON ({error}); correct the file") from None


def read_subjects(root: Path) -> dict[str, str]:
    """case_id -> subject as ``subjects.json`` states it; empty without that file."""
    path = root / "subjects.json"
    if not path.is_file():
        return {}
    subjects = read_json(path)
    if not isinstance(subjects, dict) or not all(isinstance(subject, str) for subject in subjects.values()):
        raise UserError(f'{path}: must map case ids to subjects, {{"case_01": "subject_a"}}')
    return subjects


def subject_of(case_id: str, subjects: Mapping[str, str]) -> str:
    """The stated subject; else the ``sub-XX`` a BIDS name begins with; else the case is its own subject."""
    match = _BIDS_SUBJECT.match(case_id)
    return subjects.get(case_id) or (match.group() if match else case_id)


def find_splits(root: Path) -> str | None:
    """Path of ``ROOT/splits_final.json`` where there is one."""
    path = root / "splits_final.json"
    return str(path) if path.is_file() else None
