"""Samples that a model was trained on, those of the model that it started from among them: none may be held out."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Mapping
from typing import Any

import pyarrow as pa

from data_pipelines import storage
from data_pipelines.errors import ConfigError, InputError, name_some
from data_pipelines.shards.index import index_table, read_table, write_table
from flows.registry.champion import Champion
from flows.registry.models import TAG_PREFIX
from flows.stages.attempt import Attempt
from flows.stages.record import Record, read_record
from flows.training.figures import TrainingFigures

logger = logging.getLogger(__name__)

TRAINED_ON = "trained_on"
"""Output of a training: one row per sample that shaped the weights."""
_TRAIN_KEY = re.compile(rf"{re.escape(TAG_PREFIX)}train(_\d+)?_key")
"""Tag of a version that names a training it came from; those of several are numbered."""
IDENTITIES = ("case_id", "subject", "pixel_sha256")
"""Columns by which a sample is known again, whatever its preprocessing; an index has some of them."""


def write_trained_on(attempt: Attempt, index_uri: str, base_uri: str = "") -> None:
    """Write the training samples of the index, and those of the model that the training started from."""
    own = [row for row in _rows(index_uri) if row.pop("split") == "train"]
    inherited = read_table(base_uri).to_pylist() if base_uri else []
    samples = {tuple(sorted(row.items())): row for row in (*inherited, *own)}
    write_table(attempt.uri("trained-on.parquet"), index_table(list(samples.values())))
    attempt.add(TRAINED_ON, attempt.uri("trained-on.parquet"))


def check_no_leak(index_uri: str, trained_on_uri: str, model: str) -> None:
    """Raise ConfigError where a held-out sample of the index shaped the weights of ``model``.

    Samples are the same where id, subject or decoded pixels are equal.
    """
    if found := _describe_leak(index_uri, trained_on_uri):
        raise ConfigError(
            f"train.init: {model} was trained on {found}: their scores would be too good. Keep the "
            "fold and the split that it was trained with, or leave init out"
        )


def check_unseen(index_uri: str, champion: Champion, root: str) -> None:
    """Raise InputError where a held-out sample of the index shaped the champion's weights.

    Warns where nothing in this storage says what it was trained on.
    """
    trainings = [record for _, record in iter_trainings(champion.tags, root)]
    if not trainings:
        logger.warning(
            "%s version %s: its training is not in %s, so it is unknown whether it has seen the held-out samples",
            champion.name,
            champion.version,
            root,
        )
    for training in trainings:
        if found := _describe_leak(index_uri, training.output(TRAINED_ON)):
            raise InputError(f"it was trained on {found}: its scores would be too good")


def iter_trainings(tags: Mapping[str, str], root: str) -> Iterator[tuple[str, Record[TrainingFigures]]]:
    """Yield number (``_0``; empty for a single one) and record of each training of a version in this storage."""
    for tag, key in sorted(tags.items()):
        if (match := _TRAIN_KEY.fullmatch(tag)) and key:
            record = read_record(storage.join(root, "train", key), TrainingFigures)
            if record is not None and TRAINED_ON in record.outputs:
                yield match[1] or "", record


def _describe_leak(index_uri: str, trained_on_uri: str) -> str:
    """Count and name the held-out samples of an index among those of a training; empty where there is none."""
    seen = read_table(trained_on_uri)
    known = {name: set(filter(None, seen[name].to_pylist())) for name in IDENTITIES if name in seen.column_names}
    held_out = [row for row in _rows(index_uri) if row["split"] == "val"]
    leaked = [row["case_id"] for row in held_out if any(row.get(name) in known[name] for name in known)]
    if not leaked:
        return ""
    return f"{len(leaked)} of {len(held_out)} held-out samples ({name_some(leaked, 3)})"


def _rows(index_uri: str) -> Iterator[dict[str, Any]]:
    """Yield the identities of each sample of an index, and its ``split``."""
    table: pa.Table = read_table(index_uri)
    for row in table.select([name for name in (*IDENTITIES, "split") if name in table.column_names]).to_pylist():
        yield _without_nulls(row)


def _without_nulls(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if value is not None}
