"""Parquet index of shards: its columns and the parts of a sample, declared once.

One row per sample. Beside the columns of ``COLUMNS`` a row has, for each part ``EXT`` of the sample, ``offset:EXT`` and
``size:EXT`` in bytes, and ``crc32:EXT``, the CRC-32 of the tar header before the part and of the part.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from data_pipelines import storage
from data_pipelines.errors import DataError, broken_rule

Row = dict[str, Any]
"""One row: column to value. The values' types are those of ``COLUMNS``."""

COLUMNS: dict[str, pa.DataType] = {
    # every sample
    "key": pa.string(),  # ``__key__`` in the tar
    "case_id": pa.string(),  # the user's name for the sample
    "digest": pa.string(),  # SHA-256 of source bytes and of all settings that shape the sample
    "shard": pa.string(),  # file name below the shards folder; an absolute path: a tar indexed where it lies
    "content_sha256": pa.string(),  # of all parts
    "pixel_sha256": pa.string(),  # of the decoded image, by which duplicates are found
    "split": pa.string(),  # train or val
    # volumes
    "subject": pa.string(),  # cases of one subject stay on one side of the split
    "shape": pa.list_(pa.int64()),  # voxels, after preprocessing
    "spacing": pa.list_(pa.float64()),  # mm, after preprocessing
    "class_voxels": pa.list_(pa.int64()),  # voxels of each class in the label as stored
    "statistics": pa.string(),  # JSON of ``CaseStatistics``
    "notices": pa.string(),  # JSON list of ``Notice``: what was assumed or converted in the case's files
    # captioned images
    "caption": pa.string(),  # the first of ``captions``
    "captions": pa.list_(pa.string()),  # of which training draws one each time
    "more_captions": pa.list_(pa.string()),  # of the source, besides the first
    "changes": pa.list_(pa.string()),  # beyond size and crop, as ``changes.CHANGES`` names them
    "width": pa.int64(),  # pixels of the upright original
    "height": pa.int64(),
    "image_ext": pa.string(),  # png, jpg or webp
    "copies": pa.list_(pa.string()),  # ids of skipped examples with the same pixels
    "class_name": pa.string(),  # where ``data.class_from`` names classes
    "bucket": pa.string(),  # size that the image was cut to, such as 640x384
    # latents
    "latent_mean": pa.float64(),  # mean of the posterior mean
    "latent_square": pa.float64(),  # mean of the posterior's second moment
    "latent_shape": pa.list_(pa.int64()),  # channels, height, width
    "cut_captions": pa.int64(),  # captions that are longer than the text encoder reads
    # generated images
    "prompt": pa.string(),
    "negative_prompt": pa.string(),
    "seed": pa.int64(),
    "guidance_scale": pa.float64(),
}
"""Column name to type."""

PART_COLUMNS = ("offset:", "size:", "crc32:")
"""Prefixes of the columns that locate and verify the parts of a sample, int64."""

ANNOTATED = 0
"""Class in ``FOREGROUND`` of voxels of any class, listed where others are ignored."""
IMAGE, MASK, FOREGROUND = "image.npy", "mask.npy", "foreground.npy"
"""Parts of a volume: (C, *spatial) float32; (*spatial) labels; (N, 1 + ndim) class and voxel of foreground voxels."""
GEOMETRY, TRUTH = "geometry.json", "truth.npy"
"""Parts of a volume: JSON of ``StoredGeometry``, and the label as stored where the mask cannot give it back."""
TEXT, SOUND = "text.txt", "sound.npy"
"""Further parts of a volume: UTF-8 text; (T,) float32 sound. A sample may have neither."""
IMAGE_PARTS = ("jpg", "png", "webp")
"""Parts that hold an encoded image; a sample has one of them."""
CAPTION = "txt"
"""Part of a captioned image."""
MOMENTS, STATES = "moments.npy", "states.npy"
"""Parts of an encoded image: posterior mean and log-variance (2C, h, w), text states (L, D), of K captions
(K, L, D); float16, unscaled."""


class Place(NamedTuple):
    """Place of a part in its shard, and the CRC-32 of the tar header before it and its bytes."""

    offset: int
    size: int
    crc32: int

    @property
    def end(self) -> int:
        """Byte after the last."""
        return self.offset + self.size

    def to_columns(self, extension: str) -> Row:
        """Return the columns of the part ``extension``."""
        return {f"{name}:{extension}": value for name, value in self._asdict().items()}


def places_of(row: Row) -> dict[str, Place]:
    """Return the parts of a sample, extension to place."""
    parts = [name.removeprefix("offset:") for name in row if name.startswith("offset:")]
    return {part: Place(*(row[f"{prefix}{part}"] for prefix in PART_COLUMNS)) for part in parts}


def shard_uri(shards_uri: str, name: str) -> str:
    """Return the URI of the shard that an index row names: below ``shards_uri``, or its own absolute path."""
    return name if is_adopted(name) else storage.join(shards_uri, name)


def is_adopted(name: str) -> bool:
    """Tell whether the shard is a tar of the user, indexed where it lies."""
    return name.startswith("/")


def index_table(rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    """Build the table of an index, with null where a row lacks a column.

    Raises KeyError for a column that is not in ``COLUMNS``.
    """
    names = dict.fromkeys(name for row in rows for name in row)
    schema = pa.schema([(name, _type_of(name)) for name in names])
    return pa.table({name: [row.get(name) for row in rows] for name in names}, schema)


def build_index(rows: Sequence[Mapping[str, Any]], splits: Mapping[str, str]) -> pa.Table:
    """Build the index of one run: the rows of its cases with their ``split``; cases in no split are skipped."""
    return index_table([{**row, "split": splits[row["case_id"]]} for row in rows if row["case_id"] in splits])


def write_table(uri: str, table: pa.Table) -> None:
    """Write a table as Parquet, with a checksum of each page."""
    with storage.local_copy_of(uri) as path:
        pq.write_table(table, path, write_page_checksum=True)


def read_table(uri: str, columns: list[str] | None = None) -> pa.Table:
    """Read a Parquet file, whole or some of its columns. Raises DataError where it is damaged."""
    source = (
        pa.memory_map(str(storage.local_path(uri)))
        if storage.is_local(uri)
        else pa.BufferReader(storage.read_bytes(uri))
    )
    with source:
        try:
            return pq.read_table(source, columns=columns, page_checksum_verification=True)
        except (pa.ArrowException, OSError) as error:  # of the content: the bytes are there
            raise _damaged(uri, f"not a whole Parquet file: {str(error).splitlines()[0]}") from None


def read_rows(uri: str) -> list[Row]:
    """Read the rows of an index, without null columns. Raises DataError where it is damaged."""
    table = read_table(uri)
    if unknown := [name for name in table.column_names if name not in COLUMNS and not name.startswith(PART_COLUMNS)]:
        raise _damaged(uri, f"no index has the column {unknown[0]!r}")
    parts = [{name for name in table.column_names if name.startswith(prefix)} for prefix in PART_COLUMNS]
    if len({frozenset(name.partition(":")[2] for name in names) for names in parts}) > 1:
        raise _damaged(uri, "a part lacks one of its columns")
    return [{column: value for column, value in row.items() if value is not None} for row in table.to_pylist()]


def _damaged(uri: str, reason: str) -> DataError:
    return broken_rule("damaged-index", uri, reason, "the same command with --verify writes it again")


def _type_of(name: str) -> pa.DataType:
    return pa.int64() if name.startswith(PART_COLUMNS) else COLUMNS[name]
