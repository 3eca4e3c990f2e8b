"""Samples to WebDataset tar shards, and the rows of the Parquet index that locate each part.

Shards are named by the digests of their samples and written with fixed times and owners: writing one again gives the
same bytes under the same name, so a retried task leaves no duplicates.
"""

from __future__ import annotations

import hashlib
import io
import itertools
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from data_pipelines import storage
from data_pipelines.shards.damage import BLOCK, map_shard, place_in
from data_pipelines.shards.index import Row, index_table, write_table

Sample = tuple[Row, Mapping[str, bytes]]
"""Index row (with ``key``) and parts, extension to bytes."""


def npy_bytes(array: np.ndarray) -> bytes:
    """Encode an array as an uncompressed ``.npy`` file in C order, without pickles."""
    buffer = io.BytesIO()
    np.save(buffer, np.ascontiguousarray(array), allow_pickle=False)
    return buffer.getvalue()


def shard_name(digests: Iterable[str]) -> str:
    """Build the file name of the shard that holds the samples with these digests."""
    return hashlib.sha256("\n".join(digests).encode()).hexdigest()[:20] + ".tar"


def write_shard(uri: str, samples: Iterable[Sample]) -> list[Row]:
    """Write one shard and, beside it, the Parquet rows of its samples; without samples nothing is written.

    Returns the rows completed by ``shard``, ``content_sha256``, and the columns of each part. A row that has them
    already points to another tar and comes without parts. The rows are written last: a shard without them is
    unfinished.
    """
    samples = iter(samples)
    first = next(samples, None)
    if first is None:
        return []
    with storage.local_copy_of(uri) as path:
        rows = _write_tar(path, uri.rsplit("/", 1)[-1], itertools.chain([first], samples))
    write_table(uri.removesuffix(".tar") + ".parquet", index_table(rows))
    return rows


def _write_tar(path: Path, name: str, samples: Iterable[Sample]) -> list[Row]:
    from webdataset.writer import TarWriter

    rows: list[Row] = []
    spots: list[tuple[Row, str, int, int]] = []
    with path.open("wb") as stream, TarWriter(stream, encoder=False, mtime=0, user="", group="") as writer:
        for row, parts in samples:
            rows.append(row := {"shard": name, **row})
            hasher = hashlib.sha256()
            for extension, data in sorted(parts.items()):
                writer.write({"__key__": row["key"], extension: data})
                padded = -(-len(data) // BLOCK) * BLOCK
                offset = writer.tarstream.offset - padded  # headers of long names take more blocks
                spots.append((row, extension, offset, len(data)))
                hasher.update(data)
            row.setdefault("content_sha256", hasher.hexdigest())
    with path.open("rb") as finished:
        shard = map_shard(finished)
        for row, extension, offset, size in spots:
            row |= place_in(shard, offset, size).to_columns(extension)
    return rows
