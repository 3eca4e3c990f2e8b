"""Examples: which image goes with which caption, before a pixel is read."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from data_pipelines.errors import Problem

CAPTION_COLUMNS = ("caption", "text", "TEXT")
"""Where a caption is looked for, in this order."""
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".tif", ".tiff", ".bmp")
MAX_CAPTION_BYTES = 1 << 20
"""A caption's file, or the JSON around it, is not read beyond this."""


@dataclass(frozen=True, slots=True)
class Example:
    """One image and what is said about it."""

    example_id: str
    """Path relative to the root, without suffix; within a Parquet or tar file followed by the row or the key."""
    image: str
    """Path of the image file, or of the Parquet or tar file that holds it."""
    part: int | str | None
    """Row of the Parquet file, or name of the tar member."""
    caption: str
    place: tuple[int, int] | None = None
    """Offset and size in bytes of the tar member: it is read without walking through the archive again."""

    @property
    def where(self) -> str:
        """What messages call it."""
        return where_of(self.image, self.part)


@dataclass(frozen=True, slots=True)
class Examples:
    """What a raw folder holds, and what is already wrong with it by names and captions alone."""

    name: str
    examples: tuple[Example, ...]
    problems: tuple[Problem, ...] = ()
    metadata: dict[str, str] = field(default_factory=dict)
    """How the folder is laid out, and the like."""


def where_of(path: str, part: int | str | None) -> str:
    """``a.png``, ``a.parquet: row 3`` or ``a.tar: 000003.jpg``."""
    if part is None:
        return path
    return f"{path}: row {part}" if isinstance(part, int) else f"{path}: {part}"


def printable(text: str) -> str:
    """The text with bytes that are no UTF-8 written as \\udcXX, so that it can be shown and stored."""
    return text.encode("utf-8", "backslashreplace").decode()


def read_caption(value: Any, where: str, example_id: str) -> str | Problem:
    """The caption without white space around it, or what is wrong with it."""
    if not isinstance(value, str):
        message = f"the caption must be text, got {type(value).__name__} {value!r:.60}"
        return Problem("caption-not-text", where, message, "write the caption as one string", example_id)
    if not _is_utf8(value):
        message = f"the caption is not UTF-8: {printable(value):.60}"
        return Problem("caption-not-utf8", where, message, "save the captions as UTF-8", example_id)
    if not value.strip():
        remedy = "write a caption, or leave the image out"
        return Problem("caption-empty", where, f"the caption is empty: {value!r:.60}", remedy, example_id)
    return value.strip()


def column_caption(values: Any, where: str, example_id: str) -> str | Problem:
    """The caption among the columns of a metadata line or a JSON object, or what is wrong with it."""
    if not isinstance(values, dict):
        message = f"an object with the caption is due, got {type(values).__name__} {values!r:.60}"
        return Problem("caption-not-text", where, message, 'write {"caption": "..."}', example_id)
    column = next((name for name in CAPTION_COLUMNS if name in values), None)
    if column is None:
        message = f"no caption: none of {', '.join(CAPTION_COLUMNS)} is among {printable(repr(list(values))):.120}"
        return Problem("caption-missing", where, message, "name the column of the captions `caption`", example_id)
    return read_caption(values[column], where, example_id)


def file_caption(data: bytes, is_json: bool, where: str, example_id: str) -> str | Problem:
    """The caption that a ``.txt`` or ``.json`` file holds, or what is wrong with it."""
    if len(data) > MAX_CAPTION_BYTES:
        message = f"{len(data)} bytes or more, where a caption has at most {MAX_CAPTION_BYTES}"
        return Problem("caption-too-large", where, message, "is it the right file? Shorten it", example_id)
    text = data.decode("utf-8-sig", "surrogateescape")  # what is no UTF-8 is named by read_caption
    if not is_json:
        return read_caption(text, where, example_id)
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        return Problem("unreadable-json", where, f"is not valid JSON ({error})", "correct the file", example_id)
    return column_caption(values, where, example_id)


def assemble(name: str, examples: Iterable[Example], problems: Iterable[Problem], layout: str) -> Examples:
    """The examples that nothing is wrong with, in order; several under one id, or a bad id, are problems too."""
    examples, problems = list(examples), list(problems)
    groups: dict[str, list[Example]] = defaultdict(list)
    for example in examples:
        groups[example.example_id].append(example)
    for example_id, group in groups.items():
        if len(group) > 1:
            message = f"{len(group)} images have the id {example_id!r}: {', '.join(e.where for e in group[:4])}"
            remedy = "keep one of them, or rename the others"
            problems.append(Problem("duplicate-id", group[0].where, message, remedy, example_id))
        elif not _is_utf8(example_id):
            shown = printable(example_id)
            remedy = "rename the file (UTF-8)"
            problems.append(Problem("bad-name", printable(group[0].where), "the name is not UTF-8", remedy, shown))
    bad = {problem.case_id for problem in problems}
    good = tuple(example for example in examples if printable(example.example_id) not in bad)
    return Examples(name, good, tuple(problems), {"layout": layout})


def _is_utf8(text: str) -> bool:
    """Bytes that are no UTF-8 are read as lone surrogates, which JSON can also spell."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
