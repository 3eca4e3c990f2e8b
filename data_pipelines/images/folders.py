"""Folders of images with metadata.jsonl or metadata.csv: `file_name` relative to it, and `caption` or `text`.

Hugging Face datasets' convention (imagefolder).
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from data_pipelines.errors import ProblemList, broken_rule, printable
from data_pipelines.images.classes import class_text
from data_pipelines.images.examples import Examples, assemble, column_captions
from data_pipelines.images.kinds import IMAGE_SUFFIXES, foreign_format, is_image, not_supported
from data_pipelines.images.lines import csv_lines, json_lines
from data_pipelines.images.loose import foreign_problems, loose_example, no_caption, one_form, strip_suffix

METADATA_NAMES = ("metadata.jsonl", "metadata.csv")
_CORRECT_LINE = "correct the line, or delete it"


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


def find_imagefolder(root: Path, names: list[str], class_column: str = "") -> Examples:
    """Find the images that the metadata files below ``root`` name; ``names`` are all its files, relative to it.

    The entry ``class_column`` names the class of an image; one without it has none.

    Raises DataError where a metadata file lacks its columns or is there in both formats.
    """
    images = {name for name in names if is_image(name)}
    files = _Files(names)
    named: dict[str, str] = {}  # image -> where it was named
    examples, problems = [], ProblemList()
    for metadata in _metadata_files(root, names):
        folder = posixpath.dirname(metadata)
        for entry in _iter_entries(root, metadata):
            with problems.collecting():
                name = _named_image(entry, folder, files)
                _check_not_named(name, entry, named)
                named[name] = entry.where
                _check_format(entry, name)
                captions = column_captions(entry.columns, entry.where, strip_suffix(name))
                example = loose_example(root, name, captions)
                examples.append(replace(example, class_name=class_text(entry.columns.get(class_column))))
    problems += foreign_problems(root, names, named)
    for name in sorted(images - named.keys()):
        with problems.collecting():
            raise no_caption(root, name, "no metadata file names it")
    return assemble(root.resolve().name, examples, problems, "imagefolder")


class _Files:
    """Files of a folder by name, in whatever form of Unicode a name is written."""

    def __init__(self, names: list[str]) -> None:
        self._by_form = {one_form(name): name for name in names}
        self._names = set(names)

    def find(self, name: str) -> str | None:
        """Return the name as the file system has it; None where there is no such file."""
        if name in self._names:
            return name
        return self._by_form.get(one_form(name))


def _check_format(entry: _Entry, name: str) -> None:
    """Raise DataError where an entry names a file that is there and is not an image of a supported format."""
    if foreign_format(name):
        raise not_supported(entry.where, name, printable(strip_suffix(name)))
    if not is_image(name):
        message = (
            f"names {printable(repr(name))}, which is not an image; known are names in {', '.join(IMAGE_SUFFIXES)}"
        )
        remedy = "convert the file, or delete the line"
        raise broken_rule("unknown-format", entry.where, message, remedy, printable(strip_suffix(name)))


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
        lines = csv_lines(path, stream) if path.suffix == ".csv" else json_lines(stream)
        for line, columns, fault in lines:
            yield _Entry(f"{path}:{line}", f"{metadata}:{line}", columns, fault)


def _named_image(entry: _Entry, folder: str, files: _Files) -> str:
    """Return the file that an entry names, relative to the root. Raises DataError where the folder has none."""
    if entry.fault:
        raise broken_rule("unreadable-line", entry.where, entry.fault, _CORRECT_LINE, entry.entry_id)
    file_name = entry.columns.get("file_name")
    if not isinstance(file_name, str) or not file_name:
        message = f"`file_name` must name an image, got {file_name!r:.60}"
        raise broken_rule("no-file-name", entry.where, message, _CORRECT_LINE, entry.entry_id)
    shown = printable(repr(file_name))
    is_outside = file_name.startswith("/") or ".." in file_name.replace("\\", "/").split("/")
    found = None if is_outside else files.find(posixpath.normpath(posixpath.join(folder, file_name)))
    if found is not None:
        return found
    if is_outside or file_name[1:2] == ":":
        message = f"`file_name` must stay within the folder, got {shown}"
        remedy = "name the file relative to the metadata file"
        raise broken_rule("unsafe-path", entry.where, message, remedy, entry.entry_id)
    name = posixpath.normpath(posixpath.join(folder, file_name))
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
