"""Lines of metadata.jsonl and rows of metadata.csv, each with its line number and what is wrong with it."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from data_pipelines.errors import broken_rule, printable
from data_pipelines.images.examples import CAPTION_COLUMNS

Line = tuple[int, dict[str, Any], str]
"""Line number, column to value, and reason why the line cannot be parsed: empty where it can."""


def json_lines(stream: Iterator[str]) -> Iterator[Line]:
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


def csv_lines(path: Path, stream: Iterator[str]) -> Iterator[Line]:
    """Iterate over line number, columns and fault of each row. Raises DataError where a required column is missing.

    A stray quote is a fault of its line, and not the begin of a cell that swallows the lines after it.
    """
    rows = csv.reader(stream, strict=True)
    columns = _columns(path, rows)
    line = rows.line_num
    while True:
        first = line + 1
        try:
            cells = next(rows, None)
        except csv.Error as error:
            line = rows.line_num
            yield first, {}, f"{_reach(first, line)} not valid CSV ({error}); is there a quote without its pair?"
            continue
        line = rows.line_num
        if cells is None:
            return
        if cells:
            yield first, dict(zip(columns, cells, strict=False)), _fault(cells, columns)


def _columns(path: Path, rows: Iterator[list[str]]) -> list[str]:
    try:
        columns = next(rows, [])
    except csv.Error as error:
        message = f"its first line is not valid CSV ({error})"
        raise broken_rule("missing-columns", path, message, "correct the first line") from None
    if "file_name" in columns and set(CAPTION_COLUMNS) & set(columns):
        return columns
    message = f"columns file_name and {' or '.join(CAPTION_COLUMNS)} are required, got {printable(repr(columns))}"
    raise broken_rule("missing-columns", path, message, "rename them")


def _fault(cells: list[str], columns: list[str]) -> str:
    """Say what is wrong with a row; empty where nothing is."""
    if len(cells) != len(columns):
        return f"has {len(cells)} cells, and there are {len(columns)} columns"
    return ""


def _reach(first: int, last: int) -> str:
    return "is" if first >= last else f"up to line {last} it is"
