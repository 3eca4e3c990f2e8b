"""Encoded bytes of an example's image: a file, a frame of it, a row of a Parquet file, or a member of a tar."""

from __future__ import annotations

import bisect
import itertools
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from data_pipelines.files.reading import named_errors, unreadable
from data_pipelines.images.examples import Example
from data_pipelines.images.frames import Frame, split_frames
from data_pipelines.images.parquet import image_column
from data_pipelines.images.pictures import too_large

MAX_ROW_GROUP_BYTES = 1 << 31
"""Maximum size of a Parquet row group, which is read at once."""


class PartReader:
    """Reads image bytes, at most ``max_bytes`` of each file.

    The last row group, or the frames of the last file, stay in memory: examples come in order.
    """

    def __init__(self, max_bytes: int, max_pixels: int = 1 << 26) -> None:
        self.max_bytes, self.max_pixels = max_bytes, max_pixels
        self._frames: tuple[str, list[Frame]] = "", []
        self._path = ""
        self._first_rows: list[int] = []  # of the row groups of the Parquet file at _path
        self._group = -1
        self._column: pa.ChunkedArray | None = None

    def read(self, example: Example) -> bytes:
        """Read the encoded image. Raises DataError where it is missing, too large or cannot be read."""
        where = Path(example.where)
        with named_errors(where):
            if isinstance(example.part, int):
                data = self._read_row(example.image, example.part, where)
            else:
                data = self._read_file(example.image, example.place)
            if len(data) > self.max_bytes:
                raise too_large(where, max(len(data), (example.place or (0, 0))[1]), self.max_bytes)
        return data if example.frame is None else self._frame_of(example.image, data, example.frame)

    def _frame_of(self, path: str, data: bytes, number: int) -> bytes:
        if path != self._frames[0]:
            self._frames = path, split_frames(data, path, self.max_pixels)
        return self._frames[1][number].encoded

    def _read_file(self, path: str, place: tuple[int, int] | None) -> bytes:
        offset, size = place or (0, self.max_bytes + 1)
        with open(path, "rb") as stream:
            stream.seek(offset)
            return stream.read(min(size, self.max_bytes + 1))

    def _read_row(self, path: str, row: int, where: Path) -> bytes:
        if path != self._path or bisect.bisect_right(self._first_rows, row) - 1 != self._group:
            self._load_group(path, row, where)
        assert self._column is not None
        value = self._column[row - self._first_rows[self._group]].as_py()
        data = value.get("bytes") if isinstance(value, dict) else value
        if not data:
            linked = f"; only the path {value['path']!r:.80}" if isinstance(value, dict) and value.get("path") else ""
            remedy = "write the Parquet file with the bytes of its images"
            raise unreadable("image-missing", where, f"the row holds no image bytes{linked}", remedy)
        return data

    def _load_group(self, path: str, row: int, where: Path) -> None:
        """Read the images of the row group that holds ``row``."""
        self._path, self._column = "", None  # a failure must not leave another file's rows behind
        with pq.ParquetFile(path) as file:
            metadata = file.metadata
            sizes = [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
            self._first_rows = [0, *itertools.accumulate(sizes)][:-1]
            self._group = bisect.bisect_right(self._first_rows, row) - 1
            group_bytes = metadata.row_group(self._group).total_byte_size
            if group_bytes > MAX_ROW_GROUP_BYTES:
                message = f"its row group holds {group_bytes} bytes, more than the limit of {MAX_ROW_GROUP_BYTES}"
                raise unreadable("too-large", where, message, "write the Parquet file in row groups of 1000 rows")
            column = image_column(file.schema_arrow)
            self._column = file.read_row_group(self._group, columns=[column]).column(0)
        self._path = path
