"""What the records of every sharding stage have in common."""

from __future__ import annotations

import json
import logging

import pyarrow as pa

from data_pipelines import storage
from data_pipelines.errors import Problem
from flows.stages import Record

logger = logging.getLogger(__name__)


def read_problems(record: Record) -> list[Problem]:
    """The quarantined input."""
    return [Problem(**values) for values in json.loads(storage.read_bytes(record.output("problems")))]


def shards_uri(record: Record) -> str:
    """Folder of the tar files that a record's index points into."""
    return storage.join(record.root, record.figures["shards"])


def shard_sizes(shards_uri: str, index: pa.Table) -> dict[str, int | None]:
    names = sorted(set(index["shard"].to_pylist()))
    return {name: storage.size(storage.join(shards_uri, name)) for name in names}


def shards_are_there(record: Record) -> bool:
    """Shards are named by content and never rewritten, so their sizes tell whether they are whole."""
    for name, size in record.figures["shard_sizes"].items():
        uri = storage.join(shards_uri(record), name)
        if storage.size(uri) != size:
            logger.warning("%s is missing or cut short: sharding runs again", uri)
            return False
    return True
