"""Classes of images: named by their folders, or by a column beside the captions."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping
from dataclasses import replace

import pyarrow.parquet as pq

from data_pipelines.errors import ConfigError, DataError, ProblemList, broken_rule
from data_pipelines.images.examples import Example, Examples

FOLDER = "folder"
"""Value of ``class_from`` for classes named by folders."""
WITH_COLUMNS = ("imagefolder", "parquet")
"""Layouts whose columns may name classes."""


def with_classes(found: Examples, class_from: str) -> Examples:
    """Return the examples with their ``class_name``; those without one become problems.

    Raises ConfigError where the layout has no such column.
    """
    if not class_from:
        return found
    layout = found.metadata["layout"]
    if class_from != FOLDER and layout not in WITH_COLUMNS:
        raise ConfigError(
            f"data.class_from: layout {layout} has no columns, only {' and '.join(WITH_COLUMNS)} have; sort the images "
            f"into folders by class and set data.class_from={FOLDER}"
        )
    columns = _parquet_columns(found, class_from) if layout == "parquet" and class_from != FOLDER else {}
    examples, problems = [], ProblemList(found.problems)
    for example in found.examples:
        with problems.collecting():
            examples.append(_with_class(example, class_from, columns))
    return replace(found, examples=tuple(examples), problems=tuple(problems))


def class_text(value: object) -> str:
    """Return the name of a class: text without white space around it, or a whole number; empty where it is neither."""
    if isinstance(value, str):
        return value.strip()
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else ""


def _with_class(example: Example, class_from: str, columns: Mapping[str, list[object]]) -> Example:
    """Return the example with its class. Raises DataError where it has none."""
    if class_from == FOLDER:
        name = _folder_name(example)
    elif isinstance(example.part, int):
        name = class_text(columns[example.image][example.part])
    else:
        name = example.class_name
    if not name:
        raise _no_class(example, class_from)
    return replace(example, class_name=name)


def _folder_name(example: Example) -> str:
    """Return the name of the folder that an image lies in, within a tar where it is in one; empty: it lies in none."""
    inside = example.example_id
    if isinstance(example.part, str):  # a tar's own name and folder say nothing of the class
        inside = posixpath.normpath(example.part)
    elif example.part is not None:
        inside = posixpath.dirname(example.example_id)  # of a row: FILE/ROW
    return posixpath.basename(posixpath.dirname(inside))


def _no_class(example: Example, class_from: str) -> DataError:
    if class_from == FOLDER:
        message, remedy = "lies in no folder that names a class", "move it into the folder of its class"
    else:
        message = f"has no class in the column `{class_from}`: neither text nor a whole number"
        remedy = "write its class, or correct data.class_from"
    return broken_rule("class-missing", example.where, message, remedy, example.example_id)


def _parquet_columns(found: Examples, column: str) -> dict[str, list[object]]:
    """Read the column of classes of every file. Raises ConfigError where a file has none."""
    columns = {}
    for path in dict.fromkeys(example.image for example in found.examples):
        with pq.ParquetFile(path) as file:
            if column not in file.schema_arrow.names:
                raise ConfigError(
                    f"data.class_from: {path} has no column {column!r}; its columns: {file.schema_arrow.names}"
                )
            columns[path] = file.read([column])[column].to_pylist()
    return columns
