"""Parquet index of shards: its columns and the parts of a sample, declared once.

One row per sample. Beside the columns of ``COLUMNS`` a row has ``offset:EXT`` and ``size:EXT``, in bytes, for each part
``EXT`` of the sample.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from data_pipelines import storage

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
    "changes": pa.list_(pa.string()),  # what sharding changed beyond size and crop, as ``pictures.CHANGES`` names it
    "width": pa.int64(),  # pixels of the upright original
    "height": pa.int64(),
    "image_ext": pa.string(),  # png, jpg or webp
    "copies": pa.list_(pa.string()),  # ids of skipped examples with the same pixels
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

PART_COLUMNS = ("offset:", "size:")
"""Prefixes of the columns that locate the parts of a sample, int64."""

IMAGE, MASK, FOREGROUND = "image.npy", "mask.npy", "foreground.npy"
"""Parts of a volume: (C, *spatial) float32; (*spatial) labels; (N, 1 + ndim) class and voxel of foreground voxels."""
GEOMETRY, TRUTH = "geometry.json", "truth.npy"
"""Parts of a volume: JSON of ``StoredGeometry``, and the label as stored where the mask cannot give it back."""
IMAGE_PARTS = ("jpg", "png", "webp")
"""Parts that hold an encoded image; a sample has one of them."""
CAPTION = "txt"
"""Part of a captioned image."""
MOMENTS, STATES = "moments.npy", "states.npy"
"""Parts of an encoded image: posterior mean and log-variance (2C, h, w), text states (L, D), of K captions
(K, L, D); float16, unscaled."""


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
    """Write a table as Parquet."""
    with storage.local_copy_of(uri) as path:
        pq.write_table(table, path)


def read_table(uri: str, columns: list[str] | None = None) -> pa.Table:
    """Read a Parquet file, whole or some of its columns."""
    fs, path = storage.resolve(uri)
    return pq.read_table(path, columns=columns, filesystem=fs)


def _type_of(name: str) -> pa.DataType:
    return pa.int64() if name.startswith(PART_COLUMNS) else COLUMNS[name]
