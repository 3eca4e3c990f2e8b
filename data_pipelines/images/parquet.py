"""Parquet files with image bytes and captions.

Images lie in the column `image` (struct{bytes, path} or binary), or `jpg`, `png`, `webp`, `bytes`; captions in
`caption`, `text` or `TEXT`, one or a list of several for each image.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from data_pipelines.errors import ProblemList, broken_rule
from data_pipelines.images.examples import (
    CAPTION_COLUMNS,
    Example,
    Examples,
    assemble,
    read_captions,
    unreadable_archive,
    where_of,
)

IMAGE_COLUMNS = ("image", "jpg", "jpeg", "png", "webp", "bytes")
"""Columns that may hold image bytes; the first that does is used."""
_ROWS_AT_ONCE = 10_000


def find_parquet(root: Path, names: list[str]) -> Examples:
    """Find the rows of all Parquet files below ``root``; ids are FILE/ROW. Only captions are read."""
    examples: list[Example] = []
    problems = ProblemList()
    for name in names:
        if not name.endswith(".parquet"):
            continue
        path, file_id = root / name, name.removesuffix(".parquet")
        with problems.collecting():
            for row, text in enumerate(_iter_texts(path, file_id)):
                with problems.collecting():
                    example_id = f"{file_id}/{row:06d}"
                    first, *more = read_captions(text, where_of(str(path), row), example_id)
                    examples.append(Example(example_id, str(path), row, first, more_captions=tuple(more)))
    return assemble(root.resolve().name, examples, problems, "parquet")


def image_column(schema: pa.Schema) -> str | None:
    """Return the column that holds image bytes, binary or a struct with ``bytes``, if any."""
    for name in IMAGE_COLUMNS:
        if name not in schema.names:
            continue
        kind = _value_type(schema.field(name).type)
        if pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0:
            kind = _value_type(kind.field("bytes").type)
        if pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind):
            return name
    return None


def _value_type(kind: pa.DataType) -> pa.DataType:
    """Return the type of the values: those of a dictionary where it is one."""
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def _iter_texts(path: Path, file_id: str) -> Iterator[object]:
    """Iterate over the captions of all rows. Raises DataError where the file or its columns are unusable."""
    try:
        with pq.ParquetFile(path) as file:
            column = _caption_column(path, file_id, file.schema_arrow)
            for batch in file.iter_batches(_ROWS_AT_ONCE, columns=[column]):
                yield from _texts(batch.column(0))
    except (pa.ArrowException, OSError) as error:
        raise unreadable_archive(path, file_id, str(error)) from None


def _caption_column(path: Path, file_id: str, schema: pa.Schema) -> str:
    """Return the column of captions. Raises DataError where the columns are not images and captions."""
    columns = ", ".join(f"{field.name}: {field.type}" for field in schema)
    if image_column(schema) is None:
        message = f"no column of image bytes ({', '.join(IMAGE_COLUMNS)}) among: {columns:.300}"
        raise broken_rule("no-image-column", path, message, "rename the column, or move the file away", file_id)
    caption = next((name for name in CAPTION_COLUMNS if name in schema.names), None)
    if caption is None:
        message = f"no column of captions ({', '.join(CAPTION_COLUMNS)}) among: {columns:.300}"
        raise broken_rule("caption-missing", path, message, "name the column of the captions `caption`", file_id)
    kind = _value_type(schema.field(caption).type)
    if _is_list(kind):
        kind = _value_type(kind.value_type)
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)):
        message = f"the column `{caption}` must hold text or lists of text, got {kind}"
        raise broken_rule("caption-not-text", path, message, "write each caption as one string", file_id)
    return caption


def _is_list(kind: pa.DataType) -> bool:
    tests = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list, pa.types.is_list_view)
    return any(test(kind) for test in tests)


def _texts(column: pa.Array) -> Iterator[object]:
    """Iterate over the values, text or lists of text; bytes that are not UTF-8 become surrogates."""
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if _is_list(column.type):
        for row in column:
            yield None if not row.is_valid else list(_texts(row.values)) if len(row.values) else []
        return
    # Not every writer rejects bytes that are not UTF-8, and Arrow does not when it reads.
    for value in column.cast(pa.large_string()).cast(pa.large_binary()).to_pylist():
        yield None if value is None else value.decode("utf-8", "surrogateescape")
