"""Files that hold many images with their captions: Parquet with image bytes, and WebDataset tars.

parquet       column `image` (struct{bytes, path} or binary), or `jpg`, `png`, `webp`, `bytes`; captions in `caption`,
              `text` or `TEXT`
webdataset    00000.tar with key.jpg, key.txt and key.json, as img2dataset writes them; not compressed

Images of a tar that are of the wanted size already are not written again: the index points into the tar (``sharding``).
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

from data_pipelines.images.examples import CAPTION_COLUMNS, IMAGE_SUFFIXES, MAX_CAPTION_BYTES, Example, Examples, assemble, file_caption, printable, read_caption, where_of
from data_pipelines.errors import Problem

IMAGE_COLUMNS = ("image", "jpg", "jpeg", "png", "webp", "bytes")
_ROWS_AT_ONCE = 10_000


# --- Parquet ---------------------------------------------------------------------------------------------------------


def find_parquet(root: Path, names: list[str]) -> Examples:
    """The rows of all Parquet files below ``root``; ids are FILE/ROW. Only captions are read."""
    examples: list[Example] = []
    problems: list[Problem] = []
    for name in names:
        if name.endswith(".parquet"):
            for found in _iter_rows(root / name, name.removesuffix(".parquet")):
                (problems if isinstance(found, Problem) else examples).append(found)  # type: ignore[arg-type]
    return assemble(root.resolve().name, examples, problems, "parquet")


def image_column(schema: pa.Schema) -> str | None:
    """The column that holds image bytes: binary, or a struct with ``bytes``."""
    for name in IMAGE_COLUMNS:
        if name not in schema.names:
            continue
        kind = schema.field(name).type
        if pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0:
            kind = kind.field("bytes").type
        if pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
            return name
    return None


def _iter_rows(path: Path, file_id: str) -> Iterator[Example | Problem]:
    try:
        with pq.ParquetFile(path) as file:
            schema = file.schema_arrow
            caption = next((name for name in CAPTION_COLUMNS if name in schema.names), None)
            problem = _schema_problem(path, file_id, schema, caption)
            if problem is not None or caption is None:
                yield problem or _unreadable(path, file_id, "no caption")
                return
            row = 0
            for batch in file.iter_batches(_ROWS_AT_ONCE, columns=[caption]):
                for value in _texts(batch.column(0)):
                    example_id = f"{file_id}/{row:06d}"
                    text = read_caption(value, where_of(str(path), row), example_id)
                    yield text if isinstance(text, Problem) else Example(example_id, str(path), row, text)
                    row += 1
    except (pa.ArrowException, OSError) as error:
        yield _unreadable(path, file_id, str(error))


def _schema_problem(path: Path, file_id: str, schema: pa.Schema, caption: str | None) -> Problem | None:
    """What keeps the file's columns from being images and captions, if anything."""
    columns = ", ".join(f"{field.name}: {field.type}" for field in schema)
    if image_column(schema) is None:
        message = f"no column of image bytes ({', '.join(IMAGE_COLUMNS)}) among: {columns:.300}"
        return Problem("no-image-column", str(path), message, "rename the column, or move the file away", file_id)
    if caption is None:
        message = f"no column of captions ({', '.join(CAPTION_COLUMNS)}) among: {columns:.300}"
        return Problem("caption-missing", str(path), message, "name the column of the captions `caption`", file_id)
    kind = schema.field(caption).type
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
        message = f"the column `{caption}` must hold text, got {kind}"
        return Problem("caption-not-text", str(path), message, "write each caption as one string", file_id)
    return None


def _texts(column: pa.Array) -> Iterator[str | None]:
    """The values; bytes that are no UTF-8, which writers other than Arrow let pass, become surrogates."""
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    for value in column.cast(pa.large_binary()).to_pylist():
        yield None if value is None else value.decode("utf-8", "surrogateescape")


def _unreadable(path: Path, file_id: str, reason: str) -> Problem:
    remedy = "copy the file again from its source, or move it away"
    return Problem("unreadable", str(path), f"cannot be read: {reason:.300}", remedy, file_id)


# --- WebDataset tars -------------------------------------------------------------------------------------------------

Members = dict[str, list[tarfile.TarInfo]]


def find_tars(root: Path, names: list[str]) -> Examples:
    """The samples of all tars below ``root``; ids are FILE/KEY. Headers and captions are read, images are not."""
    examples: list[Example] = []
    problems: list[Problem] = []
    for name in names:
        if name.endswith(".tar"):
            path, file_id = root / name, name.removesuffix(".tar")
            samples, found = _read_headers(path, file_id)
            problems += found
            with path.open("rb") as stream:
                for key, members in samples.items():
                    example = _sample(path, f"{file_id}/{key}", members, stream)
                    (problems if isinstance(example, Problem) else examples).append(example)  # type: ignore[arg-type]
    return assemble(root.resolve().name, examples, problems, "webdataset")


def _read_headers(path: Path, file_id: str) -> tuple[dict[str, Members], list[Problem]]:
    """key -> extension -> the members of that name. A tar that is cut short gives what comes before the cut."""
    samples: dict[str, Members] = defaultdict(lambda: defaultdict(list))
    problems = []
    length = path.stat().st_size
    try:
        with tarfile.open(path, "r:") as archive:
            while (member := archive.next()) is not None:
                archive.members = []  # type: ignore[attr-defined]  # else every header is kept
                if member.offset_data + member.size > length:
                    raise tarfile.ReadError(f"{printable(member.name)} goes beyond the end of the file")
                if member.isdir() or posixpath.basename(member.name).startswith("."):
                    continue
                if problem := _member_problem(path, file_id, member):
                    problems.append(problem)
                    continue
                folder, base = posixpath.split(posixpath.normpath(member.name))
                key, _, extension = base.partition(".")
                samples[posixpath.join(folder, key)][extension.lower()].append(member)
    except (tarfile.TarError, OSError) as error:
        problems.append(_unreadable(path, file_id, f"after {sum(map(len, samples.values()))} members: {error}"))
    return samples, problems


def _member_problem(path: Path, file_id: str, member: tarfile.TarInfo) -> Problem | None:
    """Why a member cannot be part of a sample, if anything."""
    where = where_of(str(path), printable(member.name))
    member_id = f"{file_id}/{printable(member.name)}"
    if member.name.startswith("/") or ".." in member.name.split("/"):
        remedy = "write the archive again with relative names"
        return Problem("unsafe-path", where, "the name of a member leads out of the archive", remedy, member_id)
    if member.type not in (tarfile.REGTYPE, tarfile.AREGTYPE):
        remedy = "write the archive again with plain files"
        return Problem("not-a-file", where, f"a plain file is due, got tar type {member.type!r}", remedy, member_id)
    return None


def _sample(path: Path, example_id: str, members: Members, stream: BinaryIO) -> Example | Problem:
    """The image and the caption (``.txt``, else in the ``.json``) under one key, or what is wrong with them."""
    images = [m for extension in members if f".{extension}" in IMAGE_SUFFIXES for m in members[extension]]
    where = where_of(str(path), printable(posixpath.basename(example_id)))
    shown_id = printable(example_id)
    if not images:
        message = f"no image under this key, only: {', '.join(members)}"
        return Problem("image-missing", where, printable(message), "write the archive again", shown_id)
    extension = next((name for name in ("txt", "json") if name in members), None)
    if extension is None:
        message = f"image without a caption: neither .txt nor .json under this key, only: {', '.join(members)}"
        return Problem("caption-missing", where, printable(message), "write the archive again", shown_id)
    if len(images) > 1 or len(members[extension]) > 1:
        found = ", ".join(printable(member.name) for member in (*images, *members[extension]))
        return Problem("duplicate-id", where, f"several parts for one key: {found:.200}", "keep one each", shown_id)
    caption_member = members[extension][0]
    stream.seek(caption_member.offset_data)
    data = stream.read(min(caption_member.size, MAX_CAPTION_BYTES + 1))
    caption = file_caption(data, extension == "json", where_of(str(path), printable(caption_member.name)), shown_id)
    if isinstance(caption, Problem):
        return caption
    image = images[0]
    return Example(example_id, str(path), image.name, caption, (image.offset_data, image.size))
