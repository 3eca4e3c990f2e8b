"""Random access to the samples of an index: parts by byte offset, arrays memory-mapped from the cached shard.

Each process checks each part once, when it first reads it: that is all of an image's bytes even where one patch is cut
out of it. A check of those chunks alone that a patch lies in would have to see every slice of an array.
"""

from __future__ import annotations

import ast
import logging
import os
import struct
from collections import OrderedDict
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data_pipelines import storage
from data_pipelines.atomic import remove_leftovers
from data_pipelines.errors import DataError, broken_rule
from data_pipelines.shards.damage import Damage, find_part_damage, map_shard, missing_shard
from data_pipelines.shards.index import PART_COLUMNS, Place, is_adopted, read_table, shard_uri

logger = logging.getLogger(__name__)

OPEN_SHARDS = 64
"""Maximum number of shards that one reader keeps mapped."""


class ShardReader:
    """Reads parts of samples by row number. Remote shards are downloaded once into the local cache.

    ``index`` is the table that sharding wrote, ``shards_uri`` the folder of its tar files. Pickles into worker
    processes without its open files.
    """

    def __init__(self, index: pa.Table, shards_uri: str, cache_megabytes: int = 20_000) -> None:
        self.shards_uri = shards_uri
        self.cache_megabytes = cache_megabytes
        self.num_samples = index.num_rows
        self.keys = index["key"]
        codes = index["shard"].combine_chunks().dictionary_encode()
        self.shard_names: list[str] = codes.dictionary.to_pylist()
        self.shard_of = codes.indices.to_numpy()
        extensions = [name.removeprefix("offset:") for name in index.column_names if name.startswith("offset:")]
        self.places = {
            extension: tuple(_ints(index[f"{prefix}{extension}"]) for prefix in PART_COLUMNS)
            for extension in extensions
        }
        self._open: OrderedDict[int, memoryview] = OrderedDict()
        self._sound: dict[str, bytearray] = {}

    @classmethod
    def from_uri(cls, index_uri: str, shards_uri: str) -> ShardReader:
        """Build the reader of an index that lies at ``index_uri``."""
        return cls(read_table(index_uri), shards_uri)

    def key(self, row: int) -> str:
        """Return the key of a sample."""
        return self.keys[row].as_py()

    def row_of(self, key: str) -> int:
        """Return the row of a key. Raises KeyError where there is none."""
        row = int(pc.index(self.keys, key).as_py())
        if row < 0:
            raise KeyError(f"there is no sample {key}")
        return row

    def has(self, row: int, part: str) -> bool:
        """Tell whether a sample has a part."""
        return part in self.places and int(self.places[part][1][row]) >= 0

    def read(self, row: int, part: str) -> memoryview:
        """Return the bytes of a part without copying them; the first time they are checked against their CRC-32.

        Raises KeyError where the sample has no such part, DataError where the part is damaged or its shard is gone.
        """
        offsets, sizes, _ = self.places[part]
        start, length = int(offsets[row]), int(sizes[row])
        if length < 0:
            raise KeyError(f"sample {self.key(row)} has no part {part!r}")
        shard = self._shard(int(self.shard_of[row]))
        sound = self._sound.get(part) or self._sound.setdefault(part, bytearray(self.num_samples))
        if not sound[row] or len(shard) < start + length:  # or truncated after it was checked
            shard = self._check(row, part)
            sound[row] = 1
        return shard[start : start + length]

    def array(self, row: int, part: str) -> np.ndarray:
        """Return a ``.npy`` part as an array over the mapped file: only slices of it are read from disk.

        Raises DataError where the part is not a version 1 ``.npy`` file in C order.
        """
        data = self.read(row, part)
        if bytes(data[:8]) != b"\x93NUMPY\x01\x00":
            raise self._bad_array(row, part, "not a version 1 .npy file")
        (header_size,) = struct.unpack("<H", data[8:10])
        dtype, shape, is_fortran = _npy_header(bytes(data[10 : 10 + header_size]))
        if dtype.hasobject or is_fortran:
            order = "Fortran" if is_fortran else "C"
            raise self._bad_array(row, part, f"unsupported .npy member: {dtype} {list(shape)} in {order} order")
        return np.frombuffer(data, dtype, count=int(np.prod(shape)), offset=10 + header_size).reshape(shape)

    def _bad_array(self, row: int, part: str, message: str) -> DataError:
        return broken_rule("bad-array", f"{self.key(row)}.{part}", message, "write the shards again")

    def _check(self, row: int, part: str) -> memoryview:
        """Return the shard, in which the part is sound; a damaged copy in the cache is fetched again, once."""
        place = Place(*(int(column[row]) for column in self.places[part]))
        number = int(self.shard_of[row])
        name = self.shard_names[number]
        uri = shard_uri(self.shards_uri, name)
        shard = self._shard(number)
        reason = find_part_damage(shard, place)
        if reason and not storage.is_local(uri):
            logger.warning("%s: its copy in the cache is damaged and fetched again: %s", uri, reason)
            _cached(name).unlink(missing_ok=True)
            del self._open[number]
            shard = self._shard(number)
            reason = find_part_damage(shard, place)
        if reason:
            raise Damage(uri, reason, is_adopted(name), self.key(row), "", part, place.offset, place.size).to_error()
        return shard

    def _shard(self, number: int) -> memoryview:
        if number in self._open:
            self._open.move_to_end(number)
            return self._open[number]
        with self._open_file(self.shard_names[number]) as stream:
            view = map_shard(stream)
        self._open[number] = view
        if len(self._open) > OPEN_SHARDS:
            self._open.popitem(last=False)  # unmapped once no array refers to it any more
        return view

    def _open_file(self, name: str) -> BinaryIO:
        """Open a shard, or its copy in the cache. Raises DataError where it is gone."""
        uri = shard_uri(self.shards_uri, name)
        try:
            return storage.local_path(uri).open("rb") if storage.is_local(uri) else self._fetch(uri, _cached(name))
        except FileNotFoundError:
            raise missing_shard(uri, is_adopted(name)).to_error() from None

    def _fetch(self, uri: str, path: Path) -> BinaryIO:
        """Open the copy of a remote shard in the cache; where there is none, it is downloaded."""
        try:
            stream = path.open("rb")
        except FileNotFoundError:
            path.parent.mkdir(parents=True, exist_ok=True)
            remove_leftovers(path.parent)
            _evict(path.parent, self.cache_megabytes << 20)
            storage.copy(uri, str(path))
            stream = path.open("rb")
        os.utime(stream.fileno())
        return stream

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_open": OrderedDict(), "_sound": {}}  # on another machine, other copies


def _cached(name: str) -> Path:
    """Return the path of a shard's copy in the cache; it is named by content, wherever it came from."""
    return storage.cache_folder() / "shards" / name


@lru_cache(maxsize=4096)
def _npy_header(header: bytes) -> tuple[np.dtype, tuple[int, ...], bool]:
    """Parse dtype, shape and whether the order is Fortran's; cached, as headers repeat from sample to sample."""
    fields = ast.literal_eval(header.decode("latin1"))
    return np.dtype(fields["descr"]), tuple(fields["shape"]), fields["fortran_order"]


def _ints(column: pa.ChunkedArray) -> np.ndarray:
    return column.fill_null(-1).to_numpy()


def _evict(folder: Path, limit_bytes: int) -> None:
    """Delete the least recently used shards until the cache is within its limit. Readers keep what they have mapped."""
    finished = [path for path in folder.glob("*.tar") if not path.name.startswith(".")]
    files = sorted((f.stat().st_mtime, f.stat().st_size, f) for f in finished)
    excess = sum(size for _, size, _ in files) - limit_bytes
    for _, size, path in files:
        if excess <= 0:
            break
        path.unlink(missing_ok=True)
        excess -= size
