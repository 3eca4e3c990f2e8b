"""The index and the quarantined input that sharding leaves; shards that are gone."""

from __future__ import annotations

from pathlib import Path

import pytest

from data_pipelines.digests import VERIFY_VARIABLE
from data_pipelines.errors import Problem
from data_pipelines.shards.writer import write_shard
from flows.stages.attempt import Attempt
from flows.stages.record import Record
from flows.stages.shards import (
    IndexFigures,
    add_index,
    add_problems,
    held_out_digest,
    read_problems,
    shards_exist,
    shards_uri,
)
from tests.support.records import finished

PROBLEMS = [
    Problem("label-values", "labels/x.nii.gz", "Labels must be 0 or 1, got 255.", "Divide by 255.", "x"),
    Problem("too-few-cases", "labels", "There are 3.", "Add some."),
]


def sharded(root: Path, splits: list[str]) -> Record[IndexFigures]:
    """Write one shard and leave its index in an attempt below ``root``."""
    from data_pipelines.shards.index import build_index

    rows = write_shard(
        str(root / "shards" / "a" / "0.tar"),
        [({"key": f"c{i}", "case_id": f"c{i}", "digest": f"d{i}"}, {"txt": b"x"}) for i in range(len(splits))],
    )
    attempt = Attempt(str(root / "shard" / "key"), "key", "attempt")
    index = build_index(rows, {f"c{i}": split for i, split in enumerate(splits)})
    counts = add_index(attempt, index, str(root), "shards/a")
    add_problems(attempt, PROBLEMS)
    figures = IndexFigures(**counts, num_new=len(splits))
    record = finished("shard", figures, attempt.stage_uri)
    return record.model_copy(update={"outputs": attempt.outputs})


def test_the_index_is_counted_and_its_shards_are_found(tmp_path: Path) -> None:
    record = sharded(tmp_path, ["train", "val", "train"])
    assert (record.figures.num_train, record.figures.num_val) == (2, 1)
    assert shards_uri(record) == str(tmp_path / "shards" / "a")
    assert record.figures.shard_sizes == {"0.tar": (tmp_path / "shards" / "a" / "0.tar").stat().st_size}
    assert read_problems(record) == PROBLEMS


@pytest.mark.parametrize("damage", ["remove", "cut"])
def test_shards_that_are_missing_or_truncated_make_sharding_run_again(
    tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    record = sharded(tmp_path, ["train"])
    assert shards_exist(record)
    path = tmp_path / "shards" / "a" / "0.tar"
    content = path.read_bytes()
    path.unlink()
    if damage == "cut":
        path.write_bytes(content[:-512])
    assert not shards_exist(record)
    assert "is missing or truncated: sharding runs again" in caplog.text


def test_the_digest_of_held_out_samples_ignores_the_others(tmp_path: Path) -> None:
    first = held_out_digest(sharded(tmp_path / "a", ["train", "val"]))
    more = held_out_digest(sharded(tmp_path / "b", ["train", "val", "train"]))
    other = held_out_digest(sharded(tmp_path / "c", ["val", "val"]))
    assert first == more != other


def test_flipped_byte_makes_sharding_run_again_where_all_bytes_are_to_be_checked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    record = sharded(tmp_path, ["train"])
    path = tmp_path / "shards" / "a" / "0.tar"
    data = bytearray(path.read_bytes())
    data[512] ^= 1
    path.write_bytes(data)
    assert shards_exist(record), "size and time are trusted"
    monkeypatch.setenv(VERIFY_VARIABLE, "1")
    assert not shards_exist(record)
    assert "c0.txt, 1 bytes from byte 512" in caplog.text
    path.unlink()
    sharded(tmp_path, ["train"])
    assert shards_exist(record)
