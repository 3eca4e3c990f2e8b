"""Shards: plain WebDataset tar that other readers read unchanged, with rows that say where each byte lies."""

from __future__ import annotations

import hashlib
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import webdataset

from data_pipelines.shards.index import read_table
from data_pipelines.shards.writer import npy_bytes, shard_name, write_shard

Samples = list[tuple[dict[str, Any], dict[str, bytes]]]


IMAGE = np.random.default_rng(0).normal(size=(2, 5, 6, 7)).astype(np.float32)


MASK = np.random.default_rng(1).integers(0, 3, (5, 6, 7)).astype(np.uint8)


def samples() -> Samples:
    """Three samples whose parts are of odd sizes; a name too long for one header, and a part that only one has."""
    return [
        ({"key": "a"}, {"image.npy": npy_bytes(IMAGE), "mask.npy": npy_bytes(MASK), "geometry.json": b'{"x": 1}'}),
        ({"key": "b%2E1"}, {"mask.npy": npy_bytes(MASK[::-1]), "image.npy": npy_bytes(-IMAGE)}),
        ({"key": "c_é" + "x" * 99}, {"image.npy": npy_bytes(IMAGE[:, :0]), "mask.npy": npy_bytes(np.uint8(3))}),
    ]


@pytest.fixture
def shard(tmp_path: Path) -> tuple[Path, list[dict[str, Any]]]:
    path = tmp_path / "shard.tar"
    return path, write_shard(str(path), samples())


def test_offsets_and_sizes_are_those_tarfile_finds(shard: tuple[Path, list[dict[str, Any]]]) -> None:
    path, rows = shard
    places = {
        f"{row['key']}.{name.split(':')[1]}": (row[name], row[name.replace("offset", "size")])
        for row in rows
        for name in row
        if name.startswith("offset:")
    }
    with tarfile.open(path) as archive:
        assert places == {member.name: (member.offset_data, member.size) for member in archive}
    assert len(places) == 7
    assert all(offset % 512 == 0 for offset, _ in places.values())


def test_rows_lie_beside_the_shard(shard: tuple[Path, list[dict[str, Any]]]) -> None:
    path, rows = shard
    table = read_table(str(path.with_suffix(".parquet")))
    assert [{k: v for k, v in row.items() if v is not None} for row in table.to_pylist()] == rows
    assert {row["shard"] for row in rows} == {"shard.tar"}
    assert {path.name for path in path.parent.iterdir()} == {"shard.tar", "shard.parquet"}
    parts = samples()[1][1]
    content = hashlib.sha256(parts["image.npy"] + parts["mask.npy"]).hexdigest()
    assert rows[1]["content_sha256"] == content


def test_written_again_the_bytes_are_the_same(tmp_path: Path) -> None:
    reordered = [(row, dict(reversed(parts.items()))) for row, parts in samples()]
    for name, content in {"one": samples(), "two": reordered}.items():
        (tmp_path / name).mkdir()
        write_shard(str(tmp_path / name / "shard.tar"), content)
    for file in ("shard.tar", "shard.parquet"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


def test_names_follow_the_samples_and_their_order() -> None:
    assert shard_name(["a", "b"]) == hashlib.sha256(b"a\nb").hexdigest()[:20] + ".tar"
    assert len({shard_name(d) for d in (["a", "b"], ["b", "a"], ["ab"], ["a"])}) == 4


@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")  # webdataset leaves closing to the collector
def test_webdataset_reads_the_arrays_unchanged(shard: tuple[Path, list[dict[str, Any]]]) -> None:
    found = list(webdataset.WebDataset(str(shard[0]), shardshuffle=False).decode())
    assert [sample["__key__"] for sample in found] == ["a", "b%2E1", "c_é" + "x" * 99]
    for sample, (image, mask) in zip(found, [(IMAGE, MASK), (-IMAGE, MASK[::-1]), (IMAGE[:, :0], None)], strict=True):
        np.testing.assert_array_equal(sample["image.npy"], image)
        assert sample["image.npy"].dtype == np.float32
        if mask is not None:
            np.testing.assert_array_equal(sample["mask.npy"], mask)
            assert sample["mask.npy"].dtype == np.uint8
    assert found[0]["geometry.json"] == {"x": 1}


def test_objects_are_not_written() -> None:
    with pytest.raises(ValueError, match="pickle"):
        npy_bytes(np.array([{}], dtype=object))


def test_no_samples_leave_no_files(tmp_path: Path) -> None:
    assert write_shard(str(tmp_path / "empty.tar"), iter([])) == []
    assert list(tmp_path.iterdir()) == []


def test_failure_between_samples_leaves_no_files(tmp_path: Path) -> None:
    def broken() -> Any:
        yield samples()[0]
        raise RuntimeError("disk on fire")

    with pytest.raises(RuntimeError, match="disk on fire"):
        write_shard(str(tmp_path / "half.tar"), broken())
    assert list(tmp_path.iterdir()) == []


def test_shard_appears_before_the_rows_that_vouch_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr("data_pipelines.shards.index.pq.write_table", fail)
    with pytest.raises(OSError, match="no space"):
        write_shard(str(tmp_path / "shard.tar"), samples())
    assert [path.name for path in tmp_path.iterdir()] == ["shard.tar"]
