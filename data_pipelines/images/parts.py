"""Encoded bytes of an example's image: a file, a frame of it, a row of a Parquet file, or a member of a tar."""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from data_pipelines.errors import DataError
from data_pipelines.files.reading import named_errors, unreadable
from data_pipelines.images.examples import Example
from data_pipelines.images.frames import Frame, split_frames
from data_pipelines.images.parquet import image_column
from data_pipelines.images.pictures import too_large

MAX_ROW_GROUP_BYTES = 1 << 31
"""Maximum size of a Parquet row group, which is read from its first row up to the wanted one."""
_ROWS_AT_ONCE = 256
_BUFFER_BYTES = 1 << 20


class PartReader:
    """Reads image bytes, at most ``max_bytes`` of each file.

    The last rows, or the frames of the last file, stay in memory: examples come in order.
    """

    def __init__(self, max_bytes: int, max_pixels: int = 1 << 26) -> None:
        self.max_bytes, self.max_pixels = max_bytes, max_pixels
        self._frames: tuple[str, list[Frame]] = "", []
        self._unsplit: tuple[str, DataError] | None = None
        self._rows: _Rows | None = None

    def read(self, example: Example) -> bytes:
        """Read the encoded image. Raises DataError where it is missing, too large or cannot be read."""
        if (frame := self._known_frame(example)) is not None:
            return frame.encoded
        if self._unsplit is not None and self._unsplit[0] == example.image:  # else every frame would read it again
            raise self._unsplit[1]
        where = Path(example.where)
        with named_errors(where):
            if isinstance(example.part, int):
                data = self._read_row(example.image, example.part, where)
            else:
                data = self._read_file(example.image, example.place)
            if len(data) > self.max_bytes:
                raise too_large(where, max(len(data), (example.place or (0, 0))[1]), self.max_bytes)
        if example.frame is None:
            return data
        try:
            self._frames = example.image, split_frames(data, example.image, self.max_pixels)
        except DataError as error:
            self._unsplit = example.image, error
            raise
        return self._frames[1][example.frame].encoded

    def changes(self, example: Example) -> tuple[str, ...]:
        """Name what the example that was read last lost as it was cut out of a file of several frames."""
        frame = self._known_frame(example)
        return () if frame is None else frame.changes

    def _known_frame(self, example: Example) -> Frame | None:
        """Return the frame that the example is, where it is one of the last file."""
        if example.frame is None or example.image != self._frames[0]:
            return None
        return self._frames[1][example.frame]

    def _read_file(self, path: str, place: tuple[int, int] | None) -> bytes:
        offset, size = place or (0, self.max_bytes + 1)
        with open(path, "rb") as stream:
            stream.seek(offset)
            return stream.read(min(size, self.max_bytes + 1))

    def _read_row(self, path: str, row: int, where: Path) -> bytes:
        rows, self._rows = self._rows, None  # a failure must not leave another file's rows behind
        if rows is None or rows.path != path:
            rows = _Rows(path)
        value = rows.read(row, where)
        self._rows = rows
        data = value.get("bytes") if isinstance(value, dict) else value
        if not data:
            linked = f"; only the path {value['path']!r:.80}" if isinstance(value, dict) and value.get("path") else ""
            remedy = "write the Parquet file with the bytes of its images"
            raise unreadable("image-missing", where, f"the row holds no image bytes{linked}", remedy)
        return data


class _Rows:
    """Images of a Parquet file, read a few rows at a time: pandas writes all rows as one group."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._file = pq.ParquetFile(path, buffer_size=_BUFFER_BYTES)
        metadata = self._file.metadata
        sizes = [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
        self._first_rows = [0, *itertools.accumulate(sizes)][:-1]
        self._group = -1
        self._first, self._values = 0, pa.array([])
        self._batches: Iterator[pa.RecordBatch] = iter(())

    def read(self, row: int, where: Path) -> Any:
        """Return the value of a row, bytes or a struct with ``bytes``; fastest in order.

        Raises DataError where its row group is too large.
        """
        group = bisect.bisect_right(self._first_rows, row) - 1
        if group != self._group or row < self._first:
            self._open_group(group, where)
        while row >= self._first + len(self._values):
            self._first += len(self._values)
            self._values = next(self._batches).column(0)
        return self._values[row - self._first].as_py()

    def _open_group(self, group: int, where: Path) -> None:
        group_bytes = self._file.metadata.row_group(group).total_byte_size
        if group_bytes > MAX_ROW_GROUP_BYTES:
            message = f"its row group holds {group_bytes} bytes, more than the limit of {MAX_ROW_GROUP_BYTES}"
            raise unreadable("too-large", where, message, "write the Parquet file in row groups of 1000 rows")
        columns = [image_column(self._file.schema_arrow)]
        self._batches = self._file.iter_batches(_ROWS_AT_ONCE, row_groups=[group], columns=columns)
        self._group, self._first, self._values = group, self._first_rows[group], pa.array([])
