"""Files that hold many images with their captions: Parquet with image bytes, and WebDataset tars.

parquet       column `image` (struct{bytes, path} or binary), or `jpg`, `png`, `webp`, `bytes`; captions in `caption`,
              `text` or `TEXT`
webdataset    00000.tar with key.jpg, key.txt and key.json, as img2dataset writes them; not compressed

Images of a tar that have the wanted size already are not written again: the index points into the tar (``sharding``).
"""

from __future__ import annotations

import posixpath
import tarfile
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from data_pipelines.errors import DataError, ProblemList, broken_rule
from data_pipelines.images.examples import (
    CAPTION_COLUMNS,
    IMAGE_SUFFIXES,
    MAX_CAPTION_BYTES,
    Example,
    Examples,
    assemble,
    json_caption,
    printable,
    read_caption,
    text_caption,
    where_of,
)

IMAGE_COLUMNS = ("image", "jpg", "jpeg", "png", "webp", "bytes")
"""Columns that may hold image bytes; the first that does is used."""
_ROWS_AT_ONCE = 10_000
_WRITE_AGAIN = "write the archive again"


# --- Parquet ---------------------------------------------------------------------------------------------------------


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
                    caption = read_caption(text, where_of(str(path), row), example_id)
                    examples.append(Example(example_id, str(path), row, caption))
    return assemble(root.resolve().name, examples, problems, "parquet")


def image_column(schema: pa.Schema) -> str | None:
    """Return the column that holds image bytes, binary or a struct with ``bytes``, if any."""
    for name in IMAGE_COLUMNS:
        if name not in schema.names:
            continue
        kind = schema.field(name).type
        if pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0:
            kind = kind.field("bytes").type
        if pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
            return name
    return None


def _iter_texts(path: Path, file_id: str) -> Iterator[str | None]:
    """Iterate over the captions of all rows. Raises DataError where the file or its columns are unusable."""
    try:
        with pq.ParquetFile(path) as file:
            column = _caption_column(path, file_id, file.schema_arrow)
            for batch in file.iter_batches(_ROWS_AT_ONCE, columns=[column]):
                yield from _texts(batch.column(0))
    except (pa.ArrowException, OSError) as error:
        raise _unreadable(path, file_id, str(error)) from None


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
    kind = schema.field(caption).type
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
        message = f"the column `{caption}` must hold text, got {kind}"
        raise broken_rule("caption-not-text", path, message, "write each caption as one string", file_id)
    return caption


def _texts(column: pa.Array) -> Iterator[str | None]:
    """Iterate over the values; bytes that are not UTF-8, which not every writer rejects, become surrogates."""
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    for value in column.cast(pa.large_binary()).to_pylist():
        yield None if value is None else value.decode("utf-8", "surrogateescape")


def _unreadable(path: Path, file_id: str, reason: str) -> DataError:
    remedy = "copy the file again from its source, or move it away"
    return broken_rule("unreadable", path, f"cannot be read: {reason:.300}", remedy, file_id)


# --- WebDataset tars -------------------------------------------------------------------------------------------------

Members = dict[str, list[tarfile.TarInfo]]
"""Members of one sample: extension to those of that name."""


def find_tars(root: Path, names: list[str]) -> Examples:
    """Find the samples of all tars below ``root``; ids are FILE/KEY. Headers and captions are read, images are not."""
    examples: list[Example] = []
    problems = ProblemList()
    for name in names:
        if not name.endswith(".tar"):
            continue
        path, file_id = root / name, name.removesuffix(".tar")
        samples: dict[str, Members] = defaultdict(lambda: defaultdict(list))
        with problems.collecting():
            for member in _iter_members(path, file_id):
                with problems.collecting():
                    _check_member(path, file_id, member)
                    key, extension = _split_name(member.name)
                    samples[key][extension].append(member)
        with path.open("rb") as stream:
            for key, members in samples.items():
                with problems.collecting():
                    examples.append(_build_example(path, f"{file_id}/{key}", members, stream))
    return assemble(root.resolve().name, examples, problems, "webdataset")


def _iter_members(path: Path, file_id: str) -> Iterator[tarfile.TarInfo]:
    """Iterate over the files of a tar, hidden ones skipped. Raises DataError where the tar is damaged or truncated."""
    length = path.stat().st_size
    num_members = 0
    try:
        with tarfile.open(path, "r:") as archive:
            while (member := archive.next()) is not None:
                archive.members = []  # type: ignore[attr-defined]  # else every header is kept
                if member.offset_data + member.size > length:
                    raise tarfile.ReadError(f"{printable(member.name)} goes beyond the end of the file")
                if not member.isdir() and not posixpath.basename(member.name).startswith("."):
                    num_members += 1
                    yield member
    except (tarfile.TarError, OSError) as error:
        raise _unreadable(path, file_id, f"after {num_members} members: {error}") from None


def _check_member(path: Path, file_id: str, member: tarfile.TarInfo) -> None:
    """Raise DataError where a member cannot be part of a sample."""
    where = where_of(str(path), printable(member.name))
    member_id = f"{file_id}/{printable(member.name)}"
    if member.name.startswith("/") or ".." in member.name.split("/"):
        remedy = "write the archive again with relative names"
        raise broken_rule("unsafe-path", where, "the name of a member leads out of the archive", remedy, member_id)
    if member.type not in (tarfile.REGTYPE, tarfile.AREGTYPE):
        message = f"expected a plain file, got tar type {member.type!r}"
        raise broken_rule("not-a-file", where, message, "write the archive again with plain files", member_id)


def _split_name(name: str) -> tuple[str, str]:
    """Split a member's name into key and extension, at the first dot as WebDataset does."""
    folder, base = posixpath.split(posixpath.normpath(name))
    key, _, extension = base.partition(".")
    return posixpath.join(folder, key), extension.lower()


def _build_example(path: Path, example_id: str, members: Members, stream: BinaryIO) -> Example:
    """Build the example of one key. Raises DataError where image or caption (``.txt``, else ``.json``) is unusable."""
    images = [m for extension in members if f".{extension}" in IMAGE_SUFFIXES for m in members[extension]]
    where = where_of(str(path), printable(posixpath.basename(example_id)))
    shown_id = printable(example_id)
    if not images:
        message = f"no image under this key, only: {', '.join(members)}"
        raise broken_rule("image-missing", where, printable(message), _WRITE_AGAIN, shown_id)
    extension = next((name for name in ("txt", "json") if name in members), None)
    if extension is None:
        message = f"image without a caption: neither .txt nor .json under this key, only: {', '.join(members)}"
        raise broken_rule("caption-missing", where, printable(message), _WRITE_AGAIN, shown_id)
    if len(images) > 1 or len(members[extension]) > 1:
        found = ", ".join(printable(member.name) for member in (*images, *members[extension]))
        message = f"several parts for one key: {found:.200}"
        raise broken_rule("duplicate-id", where, message, "keep one each", shown_id)
    caption_member = members[extension][0]
    stream.seek(caption_member.offset_data)
    data = stream.read(min(caption_member.size, MAX_CAPTION_BYTES + 1))
    read = json_caption if extension == "json" else text_caption
    caption = read(data, where_of(str(path), printable(caption_member.name)), shown_id)
    image = images[0]
    return Example(example_id, str(path), image.name, caption, (image.offset_data, image.size))
