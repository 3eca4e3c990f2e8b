"""The index and the quarantined input that every sharding stage leaves."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import asdict
from typing import TypedDict

import pyarrow as pa

from data_pipelines import storage
from data_pipelines.digests import digest_of, trusts_stamps
from data_pipelines.errors import Problem
from data_pipelines.notices import Notice, count_notices, log_notices
from data_pipelines.shards.damage import find_damage
from data_pipelines.shards.index import read_rows, read_table, shard_uri, write_table
from flows.stages.attempt import Attempt
from flows.stages.record import Figures, Record

logger = logging.getLogger(__name__)


FOLDERS = ("shards", "latents")
"""Folders of the storage that hold folders of shards, which runs share."""


class IndexFigures(Figures):
    """Figures of a stage that leaves an index of shards."""

    num_train: int
    """Samples to train on."""
    num_val: int
    """Held-out samples."""
    num_new: int
    """Samples that this run sharded; the others were in shards already."""
    shards: str
    """Folder of the tar files, relative to the storage."""
    shard_sizes: dict[str, int]
    """Name of each shard to its size in bytes."""


class ShardFigures(IndexFigures):
    """Figures of a stage that shards raw data."""

    dataset: str
    """Name of the data set."""
    num_quarantined: int
    """Samples that were left out because they break a rule."""


class IndexCounts(TypedDict):
    """The fields of ``IndexFigures`` that ``add_index`` computes."""

    num_train: int
    num_val: int
    shards: str
    shard_sizes: dict[str, int]


def add_index(attempt: Attempt, index: pa.Table, root: str, folder: str) -> IndexCounts:
    """Write the index as an output; ``folder`` holds its shards, relative to the storage ``root``."""
    write_table(attempt.uri("index.parquet"), index)
    attempt.add("index", attempt.uri("index.parquet"))
    split = index["split"].to_pylist()
    uri = storage.join(root, folder)
    sizes = {name: storage.size(shard_uri(uri, name)) for name in sorted(set(index["shard"].to_pylist()))}
    return {
        "num_train": split.count("train"),
        "num_val": split.count("val"),
        "shards": folder,
        "shard_sizes": {name: size or 0 for name, size in sizes.items()},
    }


def add_problems(attempt: Attempt, problems: Sequence[Problem]) -> None:
    """Write the quarantined input as an output."""
    attempt.write("problems", "problems.json", json.dumps([asdict(p) for p in problems], indent=1).encode())


def read_problems(record: Record[Figures]) -> list[Problem]:
    """Read the quarantined input."""
    return [Problem(**values) for values in json.loads(storage.read_bytes(record.output("problems")))]


def add_notices(attempt: Attempt, notices: Sequence[Notice]) -> dict[str, int]:
    """Log the notices and write them as an output; return how many there are of each kind."""
    log_notices(notices)
    attempt.write("notices", "notices.json", json.dumps([one.model_dump() for one in notices], indent=1).encode())
    return count_notices(notices)


def read_notices(record: Record[Figures]) -> list[Notice]:
    """Read the notices; none of a record without."""
    if "notices" not in record.outputs:
        return []
    return [Notice(**values) for values in json.loads(storage.read_bytes(record.output("notices")))]


def shards_uri(record: Record[IndexFigures]) -> str:
    """Return the folder of the tar files that a record's index points into."""
    return storage.join(record.root, record.figures.shards)


def shards_exist(record: Record[IndexFigures]) -> bool:
    """Check that every shard has its size; with ``--verify`` also that all bytes of its samples are as the index says.

    Shards are named by content and never rewritten. For tars that are indexed where they lie, the stage's key holds
    their digests.
    """
    for name, size in record.figures.shard_sizes.items():
        uri = shard_uri(shards_uri(record), name)
        if storage.size(uri) != size:
            logger.warning("%s is missing or truncated: sharding runs again", uri)
            return False
    damage = None if trusts_stamps() else next(find_damage(read_rows(record.output("index")), shards_uri(record)), None)
    if damage:
        logger.warning("%s: %s: sharding runs again", damage.shard, damage.message)
    return damage is None


def held_out_digest(record: Record[IndexFigures]) -> str:
    """Compute the digest of the held-out samples."""
    index = read_table(record.output("index"), columns=["digest", "split"]).to_pylist()
    return digest_of(sorted(row["digest"] for row in index if row["split"] == "val"))
