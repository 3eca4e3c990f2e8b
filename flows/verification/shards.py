"""Shards and latents: the bytes of every part against the index beside its tar, and every shard that a record names."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from functools import partial

from data_pipelines import storage
from data_pipelines.errors import DataError
from data_pipelines.shards.damage import Damage, find_damage
from data_pipelines.shards.index import read_rows, read_table
from flows.stages.shards import FOLDERS
from flows.verification.fault import RUN_AGAIN, Check, Fault

logger = logging.getLogger(__name__)

NUM_PARTS = 3
"""Damaged parts of a shard that are listed; of a truncated one, all behind its end are damaged."""
_COPY_AGAIN = "copy the archive again from its source"


def find_shards(root: str) -> Iterator[Check]:
    """Yield the finished shards of a storage. A tar without an index beside it is unfinished, and nobody reads it."""
    for kind in FOLDERS:
        for name in storage.list_names(storage.join(root, kind)):
            folder = storage.join(root, kind, name)
            indexes = [index for index in storage.list_names(folder) if index.endswith(".parquet")]
            if indexes and _lacks_digests(storage.join(folder, indexes[0])):
                logger.warning("%s: shards of an earlier version, without digests, cannot be checked", folder)
                continue
            for index in indexes:
                tar = storage.join(folder, index.removesuffix(".parquet") + ".tar")
                yield Check("shard", tar, storage.size(tar) or 0, partial(_find_faults, folder, index))


def _lacks_digests(index_uri: str) -> bool:
    """Tell whether an index has parts and no CRC-32. All shards of one folder are of one format."""
    try:
        names = read_table(index_uri).column_names
    except DataError:
        return False  # found again, and reported, when the shard is checked
    return any(name.startswith("offset:") for name in names) and not any(name.startswith("crc32:") for name in names)


def _find_faults(folder: str, index: str) -> list[Fault]:
    uri = storage.join(folder, index)
    try:
        rows = read_rows(uri)
    except DataError as error:
        return [Fault("shard", uri, error.problems[0].message, RUN_AGAIN)]
    of_shard: dict[str, list[Damage]] = {}
    for damage in find_damage(rows, folder):
        of_shard.setdefault(damage.shard, []).append(damage)
    return [_fault(shard, damages) for shard, damages in of_shard.items()]


def _fault(shard: str, damages: list[Damage]) -> Fault:
    message = "; ".join(damage.message for damage in damages[:NUM_PARTS])
    if len(damages) > NUM_PARTS:
        message += f"; and {len(damages) - NUM_PARTS} more"
    return Fault("shard", shard, message, _COPY_AGAIN if damages[0].is_adopted else RUN_AGAIN)
