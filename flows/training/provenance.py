"""Samples that a model was trained on, those of the model that it started from among them: none may be held out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pyarrow as pa

from data_pipelines.errors import ConfigError
from data_pipelines.shards.index import index_table, read_table, write_table
from flows.stages.attempt import Attempt

TRAINED_ON = "trained_on"
"""Output of a training: one row per sample that shaped the weights."""
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
    seen = read_table(trained_on_uri)
    known = {name: set(filter(None, seen[name].to_pylist())) for name in IDENTITIES if name in seen.column_names}
    held_out = [row for row in _rows(index_uri) if row["split"] == "val"]
    leaked = [row["case_id"] for row in held_out if any(row.get(name) in known[name] for name in known)]
    if leaked:
        raise ConfigError(
            f"train.init: {model} was trained on {len(leaked)} of {len(held_out)} held-out samples "
            f"({', '.join(leaked[:3])}{', ...' if len(leaked) > 3 else ''}): their scores would be too good. Keep the "
            "fold and the split that it was trained with, or leave init out"
        )


def _rows(index_uri: str) -> Iterator[dict[str, Any]]:
    """Yield the identities of each sample of an index, and its ``split``."""
    table: pa.Table = read_table(index_uri)
    for row in table.select([name for name in (*IDENTITIES, "split") if name in table.column_names]).to_pylist():
        yield _without_nulls(row)


def _without_nulls(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if value is not None}
