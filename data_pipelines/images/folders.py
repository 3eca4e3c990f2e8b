"""Loose image files with captions beside them.

imagefolder   metadata.jsonl or metadata.csv in any folder: `file_name` relative to it, and `caption` or `text`
              (Hugging Face datasets' convention)
sidecar       a.png with a.txt, or with a.json that holds `caption` or `text`
"""

from __future__ import annotations

import csv
import json
import posixpath
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from data_pipelines.images.examples import CAPTION_COLUMNS, IMAGE_SUFFIXES, MAX_CAPTION_BYTES, Example, Examples, assemble, column_caption, file_caption, printable
from data_pipelines.errors import Problem, UserError

METADATA_NAMES = ("metadata.jsonl", "metadata.csv")
NO_CAPTIONS = ("readme", "license", "licence", "notice", "copying", "dataset_info", "requirements")
"""Beginnings of the names of text and JSON files that are about the data set, not about one image."""
_READ_AGAIN = "correct the line, or delete it"


def is_image(name: str) -> bool:
    """Whether the name is that of an image."""
    return name.lower().endswith(IMAGE_SUFFIXES)


def strip_suffix(name: str) -> str:
    """``a/b.png`` -> ``a/b``."""
    return posixpath.splitext(name)[0]


# --- metadata.jsonl, metadata.csv ------------------------------------------------------------------------------------


def find_imagefolder(root: Path, names: list[str]) -> Examples:
    """The images that the metadata files below ``root`` name; ``names`` are all its files, relative to it."""
    images = {name for name in names if is_image(name)}
    named: dict[str, str] = {}  # image -> where it was named
    examples, problems = [], []
    for metadata in _metadata_files(root, names):
        folder = posixpath.dirname(metadata)
        for line, entry in _iter_entries(root / metadata):
            where, entry_id = f"{root / metadata}:{line}", f"{metadata}:{line}"
            if not isinstance(entry, dict):
                problems.append(Problem("unreadable-line", where, entry, _READ_AGAIN, entry_id))
                continue
            name = _named_image(entry, where, entry_id, folder, images)
            if isinstance(name, str) and name in named:
                message = f"names {printable(name)} again, after {named[name]}"
                name = Problem("duplicate-file-name", where, message, "keep one caption per image", strip_suffix(name))
            if isinstance(name, Problem):
                problems.append(name)
                continue
            named[name] = where
            caption = column_caption(entry, where, strip_suffix(name))
            if isinstance(caption, Problem):
                problems.append(caption)
            else:
                examples.append(Example(strip_suffix(name), str(root / name), None, caption))
    problems += [_no_caption(root, name, "no metadata file names it") for name in sorted(images - named.keys())]
    return assemble(root.resolve().name, examples, problems, "imagefolder")


def _metadata_files(root: Path, names: list[str]) -> list[str]:
    files = [name for name in names if posixpath.basename(name) in METADATA_NAMES]
    for name in files:
        if name.endswith(".csv") and name.removesuffix(".csv") + ".jsonl" in files:
            raise UserError(f"{root / name}: there is a metadata.jsonl beside it; keep the one that is meant")
    return files


def _iter_entries(path: Path) -> Iterator[tuple[int, dict[str, Any] | str]]:
    """Line number and columns of each entry, or what is wrong with it. Bytes that are no UTF-8 become surrogates."""
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as stream:
        yield from _csv_entries(path, stream) if path.suffix == ".csv" else _json_entries(stream)


def _json_entries(stream: Iterator[str]) -> Iterator[tuple[int, dict[str, Any] | str]]:
    for line, text in enumerate(stream, 1):
        if not text.strip():
            continue
        try:
            entry = json.loads(text)
        except (ValueError, RecursionError) as error:
            yield line, f"is not valid JSON ({error}): {printable(text.strip()):.60}"
            continue
        yield line, entry if isinstance(entry, dict) else f"an object is due, got {type(entry).__name__} {entry!r:.60}"


def _csv_entries(path: Path, stream: Iterator[str]) -> Iterator[tuple[int, dict[str, Any] | str]]:
    rows = csv.DictReader(stream)
    columns = rows.fieldnames or []
    if "file_name" not in columns or not set(CAPTION_COLUMNS) & set(columns):
        due = " or ".join(CAPTION_COLUMNS)
        raise UserError(
            f"{path}: columns file_name and {due} are due, got {printable(repr(list(columns)))}; rename them"
        )
    while True:
        try:
            entry = next(rows, None)
        except csv.Error as error:
            yield rows.reader.line_num, f"is not valid CSV ({error})"
            continue
        if entry is None:
            return
        extra = entry.pop(None, None)
        yield rows.line_num, entry if extra is None else f"has {len(extra)} cells more than the {len(columns)} columns"


def _named_image(entry: dict[str, Any], where: str, entry_id: str, folder: str, images: set[str]) -> str | Problem:
    """The image that a metadata entry names, relative to the root; a Problem where there is none within the folder."""
    file_name = entry.get("file_name")
    if not isinstance(file_name, str) or not file_name:
        message = f"`file_name` must name an image, got {file_name!r:.60}"
        return Problem("no-file-name", where, message, _READ_AGAIN, entry_id)
    shown = printable(repr(file_name))
    if file_name.startswith("/") or ".." in file_name.replace("\\", "/").split("/") or file_name[1:2] == ":":
        message = f"`file_name` must stay within the folder, got {shown}"
        return Problem("unsafe-path", where, message, "name the file relative to the metadata file", entry_id)
    name = posixpath.normpath(posixpath.join(folder, file_name))
    if name in images:
        return name
    message = f"names {shown}, and there is no such image"
    if not is_image(name):
        message += f"; known are names in {', '.join(IMAGE_SUFFIXES)}"
    return Problem("image-missing", where, message, "add the image, or delete the line", printable(strip_suffix(name)))


def _no_caption(root: Path, name: str, reason: str) -> Problem:
    remedy = "write its caption, or move the image out of the folder"
    shown = printable(str(root / name))
    return Problem(
        "caption-missing", shown, f"image without a caption: {reason}", remedy, printable(strip_suffix(name))
    )


# --- a.txt or a.json beside a.png ------------------------------------------------------------------------------------


def has_sidecars(names: list[str]) -> bool:
    """Whether any image has a text or JSON file of its name."""
    known = set(names)
    return any(_sidecar_of(name, known) for name in names if is_image(name))


def find_sidecars(root: Path, names: list[str]) -> Examples:
    """The images below ``root`` with the ``.txt`` (first choice) or ``.json`` of the same name."""
    known = set(names)
    images = [name for name in names if is_image(name)]
    sidecars = {name: _sidecar_of(name, known) for name in images}
    problems = [_no_caption(root, name, "no .txt or .json of its name") for name in images if not sidecars[name]]
    problems += _orphans(root, names, images)
    with ThreadPoolExecutor(max_workers=8) as pool:
        captions = pool.map(_caption_reader(root), sidecars.items())
        examples = []
        for name, caption in zip(images, captions, strict=True):
            if isinstance(caption, Problem):
                problems.append(caption)
            elif caption is not None:
                examples.append(Example(strip_suffix(name), str(root / name), None, caption))
    return assemble(root.resolve().name, examples, problems, "sidecar")


def _sidecar_of(image: str, known: set[str]) -> str | None:
    stem = strip_suffix(image)
    return next((stem + suffix for suffix in (".txt", ".json") if stem + suffix in known), None)


def _caption_reader(root: Path) -> Callable[[tuple[str, str | None]], str | Problem | None]:
    def read(pair: tuple[str, str | None]) -> str | Problem | None:
        image, sidecar = pair
        if sidecar is None:
            return None
        example_id = printable(strip_suffix(image))
        try:
            with (root / sidecar).open("rb") as stream:
                data = stream.read(MAX_CAPTION_BYTES + 1)
        except OSError as error:
            reason = f"cannot be read: {error.strerror}"
            return Problem("unreadable", printable(str(root / sidecar)), reason, "restore the file", example_id)
        return file_caption(data, sidecar.endswith(".json"), printable(str(root / sidecar)), example_id)

    return read


def _orphans(root: Path, names: list[str], images: list[str]) -> list[Problem]:
    """Captions without an image; files about the whole set and img2dataset's statistics are none."""
    stems = {strip_suffix(name) for name in images}
    problems = []
    for name in names:
        base = posixpath.basename(name).lower()
        if not base.endswith((".txt", ".json")) or base.startswith(NO_CAPTIONS) or base.endswith("_stats.json"):
            continue
        if strip_suffix(name) not in stems:
            shown, example_id = printable(str(root / name)), printable(strip_suffix(name))
            remedy = "add the image under the same name, or move this file out of the folder"
            problems.append(Problem("image-missing", shown, "caption without an image", remedy, example_id))
    return problems
