"""Examples: pairs of image and caption, before a pixel is read."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from data_pipelines.errors import DataError, Problem, ProblemList, broken_rule, printable

CAPTION_COLUMNS = ("caption", "text", "TEXT")
"""Columns that may hold the caption; the first that is present is used."""
JSON_EXTENSION = "json"
CAPTION_EXTENSIONS = ("txt", "caption", JSON_EXTENSION)
"""Extensions of the files that may hold the captions of one image; the first that is there is read."""
MAX_CAPTION_BYTES = 1 << 20
"""Maximum size of a caption's file, or of the JSON around it."""


@dataclass(frozen=True, slots=True)
class Example:
    """One image and its caption."""

    example_id: str
    """Path relative to the root, without suffix; within a Parquet or tar file followed by the row or the key."""
    image: str
    """Path of the image file, or of the Parquet or tar file that holds it."""
    part: int | str | None
    """Row of the Parquet file, or name of the tar member; None for an image file."""
    caption: str
    place: tuple[int, int] | None = None
    """Offset and size in bytes of the tar member: it is read without walking through the archive again."""
    more_captions: tuple[str, ...] = ()
    """Further captions of the same image."""
    class_name: str = ""
    """Name of its class; empty: the data have none, or nobody asked."""
    frame: int | None = None
    """Number of the frame in a file of several; None: the image is the whole file."""

    @property
    def where(self) -> str:
        """Name of the image in messages."""
        whole = where_of(self.image, self.part)
        return whole if self.frame is None else f"{whole}: frame {self.frame}"


@dataclass(frozen=True, slots=True)
class Examples:
    """Content of a raw folder, and the problems that names and captions alone show."""

    name: str
    """Name of the data set, for reports."""
    examples: tuple[Example, ...]
    """Examples without a problem, in order."""
    problems: tuple[Problem, ...] = ()
    metadata: dict[str, str] = field(default_factory=dict)
    """Facts about the data set, such as its ``layout``."""


def where_of(path: str, part: int | str | None) -> str:
    """Name an image in messages: ``a.png``, ``a.parquet: row 3`` or ``a.tar: 000003.jpg``."""
    if part is None:
        return path
    return f"{path}: row {part}" if isinstance(part, int) else f"{path}: {part}"


def read_caption(value: object, where: str, example_id: str) -> str:
    """Return a caption without surrounding white space. Raises DataError where it is not text, not UTF-8 or empty."""
    if not isinstance(value, str):
        message = f"the caption must be text, got {type(value).__name__} {value!r:.60}"
        raise broken_rule("caption-not-text", where, message, "write the caption as one string", example_id)
    if not _is_utf8(value):
        message = f"the caption is not UTF-8: {printable(value):.60}"
        raise broken_rule("caption-not-utf8", where, message, "save the captions as UTF-8", example_id)
    if "\0" in value:
        message = f"the caption holds NUL characters, as UTF-16 that is read as UTF-8 does: {value!r:.60}"
        raise broken_rule("caption-not-utf8", where, message, "save the captions as UTF-8", example_id)
    if not value.strip():
        remedy = "write a caption, or leave the image out"
        raise broken_rule("caption-empty", where, f"the caption is empty: {value!r:.60}", remedy, example_id)
    return value.strip()


def read_captions(value: object, where: str, example_id: str) -> tuple[str, ...]:
    """Return one caption, or all of a list, each once. Raises DataError where one is unusable, or there is none."""
    if not isinstance(value, list | tuple):
        return (read_caption(value, where, example_id),)
    if not value:
        message = "the list of captions is empty"
        raise broken_rule("caption-empty", where, message, "write a caption, or leave the image out", example_id)
    return tuple(dict.fromkeys(read_caption(each, where, example_id) for each in value))


def column_captions(values: object, where: str, example_id: str) -> tuple[str, ...]:
    """Return the captions in a metadata line or JSON object. Raises DataError where there is none."""
    if not isinstance(values, dict):
        message = f"expected an object with the caption, got {type(values).__name__} {values!r:.60}"
        raise broken_rule("caption-not-text", where, message, 'write {"caption": "..."}', example_id)
    column = next((name for name in CAPTION_COLUMNS if name in values), None)
    if column is None:
        message = f"no caption: none of {', '.join(CAPTION_COLUMNS)} is among {printable(repr(list(values))):.120}"
        raise broken_rule("caption-missing", where, message, "name the column of the captions `caption`", example_id)
    return read_captions(values[column], where, example_id)


def file_captions(extension: str, data: bytes, where: str, example_id: str) -> tuple[str, ...]:
    """Return the captions that a file of ``CAPTION_EXTENSIONS`` holds. Raises DataError where they are unusable."""
    if extension.lower() == JSON_EXTENSION:
        return _json_captions(data, where, example_id)
    return (read_caption(_decode(data, where, example_id), where, example_id),)


def _json_captions(data: bytes, where: str, example_id: str) -> tuple[str, ...]:
    text = _decode(data, where, example_id)
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        message = f"is not valid JSON ({error})"
        raise broken_rule("unreadable-json", where, message, "correct the file", example_id) from None
    return column_captions(values, where, example_id)


def _decode(data: bytes, where: str, example_id: str) -> str:
    """Decode a caption's file; bytes that are not UTF-8 become surrogates, which ``read_caption`` names."""
    if len(data) > MAX_CAPTION_BYTES:
        message = f"{len(data)} bytes or more, where a caption has at most {MAX_CAPTION_BYTES}"
        raise broken_rule("caption-too-large", where, message, "is it the right file? Shorten it", example_id)
    return data.decode("utf-8-sig", "surrogateescape")


def unreadable_archive(path: Path, file_id: str, reason: str) -> DataError:
    """Build the error of a Parquet or tar file that cannot be read."""
    remedy = "copy the file again from its source, or move it away"
    return broken_rule("unreadable", path, f"cannot be read: {reason:.300}", remedy, file_id)


def assemble(name: str, examples: Iterable[Example], problems: Iterable[Problem], layout: str) -> Examples:
    """Keep the examples without a problem, in order; an ambiguous or undecodable id is a problem, too."""
    examples, collected = list(examples), ProblemList(problems)
    groups: dict[str, list[Example]] = defaultdict(list)
    for example in examples:
        groups[example.example_id].append(example)
    for group in groups.values():
        with collected.collecting():
            _check_id(group)
    bad = {problem.case_id for problem in collected}
    good = tuple(example for example in examples if printable(example.example_id) not in bad)
    return Examples(name, good, tuple(collected), {"layout": layout})


def _check_id(group: list[Example]) -> None:
    """Raise DataError where several examples share an id, or it is not UTF-8."""
    first = group[0]
    if len(group) > 1:
        message = f"{len(group)} images have the id {first.example_id!r}: {', '.join(e.where for e in group[:4])}"
        remedy = "keep one of them, or rename the others"
        raise broken_rule("duplicate-id", first.where, message, remedy, first.example_id)
    if not _is_utf8(first.example_id):
        shown = printable(first.example_id)
        remedy = "rename the file (UTF-8)"
        raise broken_rule("bad-name", printable(first.where), "the name is not UTF-8", remedy, shown)


def _is_utf8(text: str) -> bool:
    """Tell whether the text has no lone surrogates: bytes that are not UTF-8 become such, and JSON can spell them."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
