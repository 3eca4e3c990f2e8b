"""What the records of every sharding stage have in common."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import asdict

import pyarrow as pa

from data_pipelines import storage
from data_pipelines.errors import Problem
from data_pipelines.shards.index import shard_uri, write_table
from flows.stages.attempt import Attempt
from flows.stages.record import Record

logger = logging.getLogger(__name__)


def read_problems(record: Record) -> list[Problem]:
    """The quarantined input."""
    return [Problem(**values) for values in json.loads(storage.read_bytes(record.output("problems")))]


def shards_uri(record: Record) -> str:
    """Folder of the tar files that a record's index points into."""
    return storage.join(record.root, record.figures["shards"])


def add_index(attempt: Attempt, index: pa.Table, root: str, folder: str) -> None:
    """Write the index; note how it is split, and its shards, which lie in ``folder`` below the storage ``root``."""
    write_table(attempt.uri("index.parquet"), index)
    attempt.add("index", attempt.uri("index.parquet"))
    split = index["split"].to_pylist()
    uri = storage.join(root, folder)
    attempt.figures |= {
        "num_train": split.count("train"),
        "num_val": split.count("val"),
        "shards": folder,
        "shard_sizes": {name: storage.size(shard_uri(uri, name)) for name in sorted(set(index["shard"].to_pylist()))},
    }


def add_problems(attempt: Attempt, problems: Sequence[Problem]) -> None:
    """Write down the quarantined input."""
    attempt.write("problems", "problems.json", json.dumps([asdict(p) for p in problems], indent=1).encode())


def shards_are_there(record: Record) -> bool:
    """Shards are named by content and never rewritten, so their sizes tell whether they are whole.

    Of tars that were adopted where they lie, the stage's key holds the digests."""
    for name, size in record.figures["shard_sizes"].items():
        uri = shard_uri(shards_uri(record), name)
        if storage.size(uri) != size:
            logger.warning("%s is missing or cut short: sharding runs again", uri)
            return False
    return True
