"""Incremental sharding: what is known already, and how the rest is grouped."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from data_pipelines.shards.incremental import group_by_size, iter_known_rows
from data_pipelines.shards.writer import npy_bytes, write_shard


def test_shard_whose_tar_was_cut_short_counts_as_missing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("a", "b"):
        write_shard(str(tmp_path / f"{name}.tar"), [({"key": name}, {"x.npy": npy_bytes(np.arange(999))})])
    assert [row["key"] for row in iter_known_rows(str(tmp_path))] == ["a", "b"]
    whole = (tmp_path / "a.tar").read_bytes()
    (tmp_path / "a.tar").write_bytes(whole[:4096])
    assert [row["key"] for row in iter_known_rows(str(tmp_path))] == ["b"]
    assert "a.parquet: its tar file is missing or truncated" in caplog.text
    (tmp_path / "b.tar").unlink()
    assert not list(iter_known_rows(str(tmp_path)))


def test_group_by_size() -> None:
    groups = list(group_by_size([1.0, 2.0, 9.0, 1.0, 1.0, 1.0, 1.0], float, 3.0, 3))
    assert groups == [[1, 2], [9], [1, 1, 1], [1]]
    assert list(group_by_size([], float, 3.0, 3)) == []
