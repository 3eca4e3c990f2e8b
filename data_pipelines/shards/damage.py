"""Damage of shards: the bytes of a part, and of the tar header before it, against their CRC-32 in the index.

CRC-32 finds every flipped byte and all but one in four billion of other changes, and is the fastest digest of the
standard library. It is no defence against forgery.
"""

from __future__ import annotations

import mmap
import os
import zlib
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import BinaryIO

from data_pipelines import storage
from data_pipelines.errors import DataError, Problem
from data_pipelines.shards.index import Place, Row, is_adopted, places_of, shard_uri

BLOCK = 512
"""Bytes that tar aligns headers and members to; a member's header is the block before its data."""

_SHARD_AGAIN = "the same command with --verify shards these samples again; `unetflow verify` lists all damage"
_COPY_AGAIN = "copy the archive again from its source"


@dataclass(frozen=True, slots=True)
class Damage:
    """A damaged part of a shard, or a shard that is gone."""

    shard: str
    """URI of the shard."""
    reason: str
    is_adopted: bool
    """True for a tar of the user."""
    key: str = ""
    """Sample; empty where the whole shard is gone."""
    case_id: str = ""
    """The user's name of the sample."""
    part: str = ""
    offset: int = 0
    """First byte of the part in the shard."""
    size: int = 0
    """Bytes of the part."""

    @property
    def message(self) -> str:
        """Sample, part and bytes, and what is wrong with them."""
        return (
            f"{self.key}.{self.part}, {self.size} bytes from byte {self.offset}: {self.reason}"
            if self.key
            else self.reason
        )

    def to_problem(self, case_id: str = "") -> Problem:
        """Build the problem, with rule and remedy; of one case where it is given."""
        remedy = _COPY_AGAIN if self.is_adopted else _SHARD_AGAIN
        if not self.key:
            return Problem("missing-shard", self.shard, self.message, remedy, case_id)
        return Problem("damaged-shard", self.shard, self.message, remedy, case_id)

    def to_error(self) -> DataError:
        """Build the error of a read, which no retry can mend."""
        return DataError([self.to_problem()])


def map_shard(stream: BinaryIO) -> memoryview:
    """Map a shard into memory; only what is looked at is read from disk."""
    if not os.fstat(stream.fileno()).st_size:  # which cannot be mapped
        return memoryview(b"")
    return memoryview(mmap.mmap(stream.fileno(), 0, prot=mmap.PROT_READ))


def place_in(shard: memoryview, offset: int, size: int) -> Place:
    """Compute the CRC-32 of a part that lies in a shard."""
    return Place(offset, size, zlib.crc32(shard[offset - BLOCK : offset + size]))


def find_part_damage(shard: memoryview, place: Place) -> str:
    """Return what is wrong with a part; empty where it is as it was written."""
    if len(shard) < place.end:
        return f"the shard ends at byte {len(shard)}"
    return _compare(place_in(shard, place.offset, place.size).crc32, place.crc32)


def _compare(found: int, expected: int) -> str:
    return "" if found == expected else f"its CRC-32 is {found:08x}, the index says {expected:08x}"


def find_damage(rows: Iterable[Row], shards_uri: str) -> Iterator[Damage]:
    """Yield the damage of all parts of the samples ``rows``, in storage itself: the local cache is not looked at."""
    of_shard: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        of_shard[row["shard"]].append(row)
    for name, samples in of_shard.items():
        uri = shard_uri(shards_uri, name)
        try:
            with storage.local_file(uri) as path, path.open("rb") as stream:
                yield from _find_in_shard(stream, uri, samples)
        except FileNotFoundError:
            yield missing_shard(uri, is_adopted(name))


def missing_shard(uri: str, is_adopted: bool) -> Damage:
    """Build the damage of a shard that is gone."""
    return Damage(uri, "there is no such file", is_adopted)


def _find_in_shard(stream: BinaryIO, uri: str, samples: Iterable[Row]) -> Iterator[Damage]:
    for row in samples:
        for part, place in places_of(row).items():
            if reason := _read_damage(stream, place):
                adopted, case_id = is_adopted(row["shard"]), row.get("case_id", "")
                yield Damage(uri, reason, adopted, row["key"], case_id, part, place.offset, place.size)


def _read_damage(stream: BinaryIO, place: Place) -> str:
    """Return what is wrong with a part. It is read, not mapped: of a bad sector a process that maps it would die."""
    try:
        stream.seek(place.offset - BLOCK)
        block = stream.read(BLOCK + place.size)
    except OSError as error:
        return f"it cannot be read: {error.strerror}"
    if len(block) < BLOCK + place.size:
        return f"the shard ends at byte {os.fstat(stream.fileno()).st_size}"
    return _compare(zlib.crc32(block), place.crc32)
