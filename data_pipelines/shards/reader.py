"""Random access to the samples of an index: parts by byte offset, arrays memory-mapped from the cached shard."""

from __future__ import annotations

import ast
import mmap
import struct
from collections import OrderedDict
from functools import lru_cache
from pathlib import Path

import numpy as np
import pyarrow as pa

from data_pipelines import storage
from data_pipelines.errors import UserError
from data_pipelines.shards.index import read_table, shard_uri

OPEN_SHARDS = 64
"""Shards kept mapped at once by one reader."""


class ShardReader:
    """Reads parts of samples by row number. Remote shards are fetched once into the local cache.

    ``index`` is the table that sharding wrote; ``shards_uri`` the folder of its tar files. Pickles into worker
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
        self.places = {
            name.split(":", 1)[1]: (_ints(index[name]), _ints(index["size:" + name.split(":", 1)[1]]))
            for name in index.column_names
            if name.startswith("offset:")
        }
        self._open: OrderedDict[int, memoryview] = OrderedDict()

    @classmethod
    def from_uri(cls, index_uri: str, shards_uri: str) -> ShardReader:
        """Read the index and be ready."""
        return cls(read_table(index_uri), shards_uri)

    def key(self, row: int) -> str:
        """The sample's key."""
        return self.keys[row].as_py()

    def has(self, row: int, part: str) -> bool:
        """Whether the sample has that part."""
        return part in self.places and int(self.places[part][1][row]) >= 0

    def read(self, row: int, part: str) -> memoryview:
        """The bytes of a part, without copying."""
        offsets, sizes = self.places[part]
        start, length = int(offsets[row]), int(sizes[row])
        if length < 0:
            raise KeyError(f"sample {self.key(row)} has no part {part!r}")
        return self._shard(int(self.shard_of[row]))[start : start + length]

    def array(self, row: int, part: str) -> np.ndarray:
        """A ``.npy`` part as an array over the mapped file: only what is sliced out of it is read from disk."""
        data = self.read(row, part)
        if bytes(data[:8]) != b"\x93NUMPY\x01\x00":
            raise UserError(f"{self.key(row)}.{part}: not a version 1 .npy file; write the shards again")
        (header_size,) = struct.unpack("<H", data[8:10])
        dtype, shape = _npy_header(bytes(data[10 : 10 + header_size]))
        return np.frombuffer(data, dtype, count=int(np.prod(shape)), offset=10 + header_size).reshape(shape)

    def _shard(self, number: int) -> memoryview:
        if number in self._open:
            self._open.move_to_end(number)
            return self._open[number]
        with self._path(self.shard_names[number]).open("rb") as stream:
            view = memoryview(mmap.mmap(stream.fileno(), 0, prot=mmap.PROT_READ))
        self._open[number] = view
        if len(self._open) > OPEN_SHARDS:
            self._open.popitem(last=False)  # unmapped once no array refers to it any more
        return view

    def _path(self, name: str) -> Path:
        uri = shard_uri(self.shards_uri, name)
        if storage.is_local(uri):
            return storage.local_path(uri)
        path = storage.cache_folder() / "shards" / name  # named by content: the same shard wherever it came from
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            _make_room(path.parent, self.cache_megabytes << 20)
            storage.copy(uri, str(path))
        path.touch()
        return path

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_open": OrderedDict()}


@lru_cache(maxsize=4096)
def _npy_header(header: bytes) -> tuple[np.dtype, tuple[int, ...]]:
    """dtype and shape; headers repeat from sample to sample, so parsing is cached."""
    fields = ast.literal_eval(header.decode("latin1"))
    dtype = np.dtype(fields["descr"])
    if dtype.hasobject or fields["fortran_order"]:
        raise UserError(f"unsupported .npy member: {fields}; write the shards again")
    return dtype, tuple(fields["shape"])


def _ints(column: pa.ChunkedArray) -> np.ndarray:
    return column.fill_null(-1).to_numpy()


def _make_room(folder: Path, limit_bytes: int) -> None:
    """Delete the shards used longest ago until the cache is within its limit. Readers keep what they have mapped."""
    files = sorted((f.stat().st_mtime, f.stat().st_size, f) for f in folder.glob("*.tar"))
    excess = sum(size for _, size, _ in files) - limit_bytes
    for _, size, path in files:
        if excess <= 0:
            break
        path.unlink(missing_ok=True)
        excess -= size
