"""Rules about file names and declarations that every layout shares.

ROOT/subjects.json      optional: {"NAME": "subject"}; cases of a subject stay on one side of a split
ROOT/splits_final.json  optional: folds as nnU-Net writes them
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from data_pipelines.errors import ProblemList, broken_rule, printable
from data_pipelines.files.reading import is_file_or_broken_link
from data_pipelines.notices import Notice, notice
from data_pipelines.volumes.files import is_volume_name, source_files, strip_suffix
from data_pipelines.volumes.formats.base import ALL_SUFFIXES

MAX_ID_BYTES = 80
"""Case ids become members of a tar archive: 80 bytes leave room for the suffixes within the 100 that every tar reader
knows. Dots within an id are fine, sharding escapes them."""
_BAD_IN_ID = re.compile(r"[/\\:*?\"<>|\x00-\x1f\x7f]")
_MAX_JSON_BYTES = 1 << 28
_BIDS_SUBJECT = re.compile(r"sub-[A-Za-z0-9]+")
SKIPPED_FOLDER = "is a folder: what is in it is not read"
_ORPHAN = "add the missing file under the same name, or move this one out of the folder"


def list_volumes(folder: Path) -> list[Path]:
    """List the files of a known format in ``folder``, sorted by name, hidden ones (``._NAME`` of macOS) skipped.

    Links to nothing are listed: they are found to be missing when they are read.
    """
    if not folder.is_dir():
        return []
    return sorted(entry for entry in folder.iterdir() if is_volume_name(entry.name) and is_file_or_broken_link(entry))


def unread_files(folder: Path) -> list[Path]:
    """List the files of ``folder`` that nothing reads, sorted by name: no known format, nor a header's voxels."""
    if not folder.is_dir():
        return []
    entries = (entry for entry in folder.iterdir() if not entry.name.startswith("."))
    others = [e for e in entries if is_file_or_broken_link(e) and not is_volume_name(e.name)]
    used = {file for path in list_volumes(folder) for file in source_files(path)} if others else set()
    return sorted(entry for entry in others if entry not in used)


def skipped_files(*folders: Path) -> tuple[Notice, ...]:
    """Build a notice for each file of the folders that nothing reads, and for each folder in them."""
    return tuple(
        notice("skipped-file", path, _reason(path))
        for folder in folders
        for path in (*unread_files(folder), *folders_within(folder))
    )


def _reason(path: Path) -> str:
    if path.is_dir():
        return SKIPPED_FOLDER
    return f"{ending_of(path)} is no supported format: the file is not read"


def folders_within(folder: Path) -> list[Path]:
    """List the folders in ``folder``, sorted by name, hidden ones skipped."""
    if not folder.is_dir():
        return []
    return sorted(entry for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))


def ending_of(path: Path) -> str:
    """Return the ending of a file's name, for messages."""
    return path.suffix or "a name without an ending"


def normal(text: str) -> str:
    """Return the composed Unicode form (NFC) of a name: a Mac writes the decomposed one, and both mean the same."""
    return unicodedata.normalize("NFC", text)


def case_id_of(path: Path) -> str:
    """Return the case id that a file name stands for: without suffix, in composed Unicode form."""
    return normal(strip_suffix(path.name))


def existing(path: Path) -> Path:
    """Return the file that exists under this name in any Unicode form; the path itself where there is none."""
    if path.exists() or not path.parent.is_dir() or path.name.isascii():
        return path
    return next((entry for entry in path.parent.iterdir() if normal(entry.name) == normal(path.name)), path)


def unique_ids(paths: Iterable[Path]) -> tuple[dict[str, Path], ProblemList]:
    """Map the case ids that are usable and unambiguous to their files; the others are problems.

    Two files clash when their names differ in suffix or letter case only: not every file system can hold both.
    """
    groups: dict[str, list[Path]] = defaultdict(list)
    for path in paths:
        groups[case_id_of(path).casefold()].append(path)
    found: dict[str, Path] = {}
    problems = ProblemList()
    for group in groups.values():
        case_id = case_id_of(group[0])
        broken = id_problems(case_id, group)
        problems += broken
        if not broken:
            found[case_id] = group[0]
    return found, problems


def id_problems(case_id: str, paths: Sequence[Path]) -> ProblemList:
    """Collect the problems of an id that ``paths`` claim."""
    problems = ProblemList()
    with problems.collecting(case_id):
        check_id(case_id, paths[0])
    with problems.collecting(case_id):
        check_unique(paths)
    return problems


def check_unique(paths: Sequence[Path]) -> None:
    """Raise DataError where several files (or folders) stand for one case."""
    if len(paths) > 1:
        message = f"{len(paths)} files have one case id: {', '.join(path.name for path in paths)}"
        raise broken_rule("duplicate-id", paths[0], message, "keep one of them, or rename the others")


def check_id(case_id: str, path: Path) -> None:
    """Raise DataError where ``case_id`` cannot be the key of a tar member."""
    check_name(case_id, path)
    reason = ""
    if not case_id.strip():
        reason = "is empty"
    elif case_id != case_id.strip() or case_id.startswith((".", "-", "~")):
        reason = "begins with '.', '-' or '~', or begins or ends with a space"
    elif match := _BAD_IN_ID.search(case_id):
        reason = f"holds {match.group()!r}; path separators, wildcards and control characters are not allowed"
    elif len(case_id.encode()) > MAX_ID_BYTES:
        reason = f"is longer than {MAX_ID_BYTES} bytes"
    if reason:
        remedy = "rename the files of the case (letters, digits, '_' and '-')"
        raise broken_rule("bad-case-id", path, f"the case id {case_id!r} {reason}", remedy)


def check_name(name: str, path: Path) -> None:
    """Raise DataError where a name is not UTF-8: neither an index nor a record can hold it."""
    if printable(name) != name:
        raise broken_rule("bad-name", path, "the name is not UTF-8", "rename the file (UTF-8)")


def pair_ids(
    images: Mapping[str, Path], labels: Mapping[str, Path], image_folder: Path, label_folder: Path
) -> tuple[list[str], ProblemList]:
    """List the ids that have an image and a label, sorted; each that has one only is a problem.

    ``images`` and ``labels`` map case id to (first) file.
    """
    problems = ProblemList()
    unpaired = sorted(images.keys() ^ labels.keys())
    unread = {folder: unread_files(folder) for folder in (image_folder, label_folder)} if unpaired else {}
    for case_id in unpaired:
        with problems.collecting(case_id):
            if case_id in images:
                message = f"image without a label in {label_folder.name}/{_unread(case_id, unread[label_folder])}"
                raise broken_rule("label-missing", images[case_id], message, _ORPHAN)
            message = f"label without an image in {image_folder.name}/{_unread(case_id, unread[image_folder])}"
            raise broken_rule("image-missing", labels[case_id], message, _ORPHAN)
    return sorted(images.keys() & labels.keys()), problems


def _unread(case_id: str, unread: Sequence[Path]) -> str:
    """Say that the missing file lies there in a format that is not read."""
    found = [path for path in unread if normal(path.name).startswith(f"{strip_suffix(case_id)}.")]
    return f"; {found[0].name} lies there, and {ending_of(found[0])} is no supported format" if found else ""


def without(problems: ProblemList, case_ids: Iterable[str]) -> ProblemList:
    """Drop the problems of ``case_ids``, whose letter case is ignored: they have been reported already."""
    folded = {case_id.casefold() for case_id in case_ids}
    return ProblemList(problem for problem in problems if problem.case_id.casefold() not in folded)


def check_not_empty(folder: Path, images: Mapping[str, object]) -> None:
    """Raise DataError where there is no image at all."""
    if images:
        return
    if unread := Counter(ending_of(path) for path in unread_files(folder)):
        endings = ", ".join(f"{ending} ({count} files)" for ending, count in unread.most_common(5))
        message = f"no usable image in this folder; it holds {endings}, which is no supported format"
        remedy = f"convert the images: names may end in {', '.join(ALL_SUFFIXES)}"
        raise broken_rule("empty-folder", folder, message, remedy)
    remedy = "check data.root, and that the data set has been unpacked"
    raise broken_rule("empty-folder", folder, "no usable image in this folder", remedy)


def read_json(path: Path) -> Any:
    """Read a JSON file. Raises DataError where it is too large or not JSON."""
    size = path.stat().st_size
    if size > _MAX_JSON_BYTES:
        message = f"{size} bytes, more than the limit of {_MAX_JSON_BYTES} for a JSON file"
        raise broken_rule("too-large", path, message, "is it the right file? Replace it")
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise broken_rule("unreadable-json", path, f"is not valid JSON ({error})", "correct the file") from None


def read_subjects(root: Path) -> dict[str, str]:
    """Read case_id -> subject from ``subjects.json``, empty without that file. Raises DataError for a malformed one."""
    path = root / "subjects.json"
    if not path.is_file():
        return {}
    subjects = read_json(path)
    if not isinstance(subjects, dict) or not all(isinstance(subject, str) for subject in subjects.values()):
        message = f"must map case ids to subjects, got {subjects!r:.200}"
        raise broken_rule("bad-subjects", path, message, 'write it as {"case_01": "subject_a"}')
    return {normal(case_id): subject for case_id, subject in subjects.items()}


def subject_of(case_id: str, subjects: Mapping[str, str], patient: str = "") -> str:
    """Return the stated subject; else the ``sub-XX`` a BIDS name begins with; else the patient of its header, where
    there is one; else the case is its own subject."""
    match = _BIDS_SUBJECT.match(case_id)
    return subjects.get(case_id) or (match.group() if match else patient or case_id)


def find_splits(root: Path) -> str | None:
    """Return the path of ``ROOT/splits_final.json`` where there is one."""
    path = root / "splits_final.json"
    return str(path) if path.is_file() else None
