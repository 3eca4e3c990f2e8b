"""Loose image files with captions beside them.

imagefolder   metadata.jsonl or metadata.csv in any folder: `file_name` relative to it, and `caption` or `text`
              (Hugging Face datasets' convention)
sidecar       a.png with a.txt, or with a.json that holds `caption` or `text`
"""

from __future__ import annotations

import csv
import json
import posixpath
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_pipelines.errors import DataError, ProblemList, broken_rule
from data_pipelines.images.examples import (
    CAPTION_COLUMNS,
    IMAGE_SUFFIXES,
    MAX_CAPTION_BYTES,
    Example,
    Examples,
    assemble,
    column_caption,
    json_caption,
    printable,
    text_caption,
)

METADATA_NAMES = ("metadata.jsonl", "metadata.csv")
NO_CAPTIONS = ("readme", "license", "licence", "notice", "copying", "dataset_info", "requirements")
"""Prefixes of the names of text and JSON files that are about the data set, not about one image."""
_CORRECT_LINE = "correct the line, or delete it"


def is_image(name: str) -> bool:
    """Tell whether the name is that of an image."""
    return name.lower().endswith(IMAGE_SUFFIXES)


def strip_suffix(name: str) -> str:
    """Remove the suffix: ``a/b.png`` -> ``a/b``."""
    return posixpath.splitext(name)[0]


# --- metadata.jsonl, metadata.csv ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Entry:
    """One entry of a metadata file."""

    where: str
    """File and line, for messages."""
    entry_id: str
    """Stands for the example's id where the entry names no image."""
    columns: dict[str, Any]
    fault: str = ""
    """Reason why the line could not be parsed; empty where it could."""


def find_imagefolder(root: Path, names: list[str]) -> Examples:
    """Find the images that the metadata files below ``root`` name; ``names`` are all its files, relative to it.

    Raises DataError where a metadata file lacks its columns or is there in both formats.
    """
    images = {name for name in names if is_image(name)}
    named: dict[str, str] = {}  # image -> where it was named
    examples, problems = [], ProblemList()
    for metadata in _metadata_files(root, names):
        folder = posixpath.dirname(metadata)
        for entry in _iter_entries(root, metadata):
            with problems.collecting():
                name = _named_image(entry, folder, images)
                _check_not_named(name, entry, named)
                named[name] = entry.where
                caption = column_caption(entry.columns, entry.where, strip_suffix(name))
                examples.append(Example(strip_suffix(name), str(root / name), part=None, caption=caption))
    for name in sorted(images - named.keys()):
        with problems.collecting():
            raise _no_caption(root, name, "no metadata file names it")
    return assemble(root.resolve().name, examples, problems, "imagefolder")


def _metadata_files(root: Path, names: list[str]) -> list[str]:
    files = [name for name in names if posixpath.basename(name) in METADATA_NAMES]
    for name in files:
        if name.endswith(".csv") and name.removesuffix(".csv") + ".jsonl" in files:
            message = "there is a metadata.jsonl beside it"
            raise broken_rule("two-metadata-files", root / name, message, "keep the one that is meant")
    return files


def _iter_entries(root: Path, metadata: str) -> Iterator[_Entry]:
    """Iterate over the entries of a metadata file. Bytes that are not UTF-8 become surrogates."""
    path = root / metadata
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as stream:
        lines = _csv_lines(path, stream) if path.suffix == ".csv" else _json_lines(stream)
        for line, columns, fault in lines:
            yield _Entry(f"{path}:{line}", f"{metadata}:{line}", columns, fault)


def _json_lines(stream: Iterator[str]) -> Iterator[tuple[int, dict[str, Any], str]]:
    """Iterate over line number, columns and fault of each line that is not empty."""
    for line, text in enumerate(stream, 1):
        if not text.strip():
            continue
        try:
            entry = json.loads(text)
        except (ValueError, RecursionError) as error:
            yield line, {}, f"is not valid JSON ({error}): {printable(text.strip()):.60}"
            continue
        if isinstance(entry, dict):
            yield line, entry, ""
        else:
            yield line, {}, f"expected an object, got {type(entry).__name__} {entry!r:.60}"


def _csv_lines(path: Path, stream: Iterator[str]) -> Iterator[tuple[int, dict[str, Any], str]]:
    """Iterate over line number, columns and fault of each row. Raises DataError where a required column is missing."""
    rows = csv.DictReader(stream)
    columns = rows.fieldnames or []
    if "file_name" not in columns or not set(CAPTION_COLUMNS) & set(columns):
        message = (
            f"columns file_name and {' or '.join(CAPTION_COLUMNS)} are required, got {printable(repr(list(columns)))}"
        )
        raise broken_rule("missing-columns", path, message, "rename them")
    while True:
        try:
            entry = next(rows, None)
        except csv.Error as error:
            yield rows.reader.line_num, {}, f"is not valid CSV ({error})"
            continue
        if entry is None:
            return
        extra = entry.pop(None, None)  # DictReader's key of surplus cells
        fault = "" if extra is None else f"has {len(extra)} cells more than the {len(columns)} columns"
        yield rows.line_num, entry, fault


def _named_image(entry: _Entry, folder: str, images: set[str]) -> str:
    """Return the image that an entry names, relative to the root. Raises DataError where the folder has none."""
    if entry.fault:
        raise broken_rule("unreadable-line", entry.where, entry.fault, _CORRECT_LINE, entry.entry_id)
    file_name = entry.columns.get("file_name")
    if not isinstance(file_name, str) or not file_name:
        message = f"`file_name` must name an image, got {file_name!r:.60}"
        raise broken_rule("no-file-name", entry.where, message, _CORRECT_LINE, entry.entry_id)
    shown = printable(repr(file_name))
    if file_name.startswith("/") or ".." in file_name.replace("\\", "/").split("/") or file_name[1:2] == ":":
        message = f"`file_name` must stay within the folder, got {shown}"
        remedy = "name the file relative to the metadata file"
        raise broken_rule("unsafe-path", entry.where, message, remedy, entry.entry_id)
    name = posixpath.normpath(posixpath.join(folder, file_name))
    if name in images:
        return name
    message = f"names {shown}, and there is no such image"
    if not is_image(name):
        message += f"; known are names in {', '.join(IMAGE_SUFFIXES)}"
    remedy = "add the image, or delete the line"
    raise broken_rule("image-missing", entry.where, message, remedy, printable(strip_suffix(name)))


def _check_not_named(name: str, entry: _Entry, named: dict[str, str]) -> None:
    if name in named:
        message = f"names {printable(name)} again, after {named[name]}"
        remedy = "keep one caption per image"
        raise broken_rule("duplicate-file-name", entry.where, message, remedy, strip_suffix(name))


def _no_caption(root: Path, name: str, reason: str) -> DataError:
    shown, example_id = printable(str(root / name)), printable(strip_suffix(name))
    remedy = "write its caption, or move the image out of the folder"
    return broken_rule("caption-missing", shown, f"image without a caption: {reason}", remedy, example_id)


# --- a.txt or a.json beside a.png ------------------------------------------------------------------------------------


def has_sidecars(names: list[str]) -> bool:
    """Tell whether any image has a text or JSON file of its name."""
    known = set(names)
    return any(_sidecar_of(name, known) for name in names if is_image(name))


def find_sidecars(root: Path, names: list[str]) -> Examples:
    """Find the images below ``root`` with the ``.txt`` (first choice) or ``.json`` of the same name."""
    known = set(names)
    images = [name for name in names if is_image(name)]
    sidecars = {name: sidecar for name in images if (sidecar := _sidecar_of(name, known)) is not None}
    examples, problems = [], ProblemList()
    for name in images:
        with problems.collecting():
            if name not in sidecars:
                raise _no_caption(root, name, "no .txt or .json of its name")
    stems = {strip_suffix(name) for name in images}
    for name in names:
        with problems.collecting():
            _check_not_orphaned(root, name, stems)
    with ThreadPoolExecutor(max_workers=8) as pool:
        captions = {name: pool.submit(_read_sidecar, root, name, sidecar) for name, sidecar in sidecars.items()}
        for name, caption in captions.items():
            with problems.collecting():
                examples.append(Example(strip_suffix(name), str(root / name), part=None, caption=caption.result()))
    return assemble(root.resolve().name, examples, problems, "sidecar")


def _sidecar_of(image: str, known: set[str]) -> str | None:
    stem = strip_suffix(image)
    return next((stem + suffix for suffix in (".txt", ".json") if stem + suffix in known), None)


def _read_sidecar(root: Path, image: str, sidecar: str) -> str:
    """Read the caption of an image. Raises DataError where it is unusable."""
    example_id, where = printable(strip_suffix(image)), printable(str(root / sidecar))
    try:
        with (root / sidecar).open("rb") as stream:
            data = stream.read(MAX_CAPTION_BYTES + 1)
    except OSError as error:
        reason = f"cannot be read: {error.strerror}"
        raise broken_rule("unreadable", where, reason, "restore the file", example_id) from None
    return (json_caption if sidecar.endswith(".json") else text_caption)(data, where, example_id)


def _check_not_orphaned(root: Path, name: str, stems: set[str]) -> None:
    """Raise DataError for a caption without an image; files about the whole set and img2dataset's statistics pass."""
    base = posixpath.basename(name).lower()
    if not base.endswith((".txt", ".json")) or base.startswith(NO_CAPTIONS) or base.endswith("_stats.json"):
        return
    if strip_suffix(name) not in stems:
        shown, example_id = printable(str(root / name)), printable(strip_suffix(name))
        remedy = "add the image under the same name, or move this file out of the folder"
        raise broken_rule("image-missing", shown, "caption without an image", remedy, example_id)
