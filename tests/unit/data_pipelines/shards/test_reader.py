"""Random access: any part of any sample, from local shards or a bounded cache of remote ones."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from data_pipelines import storage
from data_pipelines.errors import DataError
from data_pipelines.shards import reader
from data_pipelines.shards.reader import ShardReader
from data_pipelines.shards.writer import npy_bytes, write_shard

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


def read_back(folder: Path, rows: list[dict[str, Any]]) -> ShardReader:
    names = dict.fromkeys(name for row in rows for name in row)
    return ShardReader(pa.table({name: [row.get(name) for row in rows] for name in names}), str(folder))


@pytest.fixture
def shard(tmp_path: Path) -> tuple[Path, list[dict[str, Any]]]:
    path = tmp_path / "shard.tar"
    return path, write_shard(str(path), samples())


def test_reader_returns_the_arrays(shard: tuple[Path, list[dict[str, Any]]]) -> None:
    shards = read_back(shard[0].parent, shard[1])
    assert shards.num_samples == 3
    assert [shards.key(row) for row in range(3)] == ["a", "b%2E1", "c_é" + "x" * 99]
    for row, array in {2: IMAGE[:, :0], 0: IMAGE, 1: -IMAGE}.items():  # any order
        np.testing.assert_array_equal(shards.array(row, "image.npy"), array)
        assert shards.array(row, "image.npy").dtype == np.float32
    np.testing.assert_array_equal(shards.array(1, "mask.npy"), MASK[::-1])
    assert bytes(shards.read(0, "geometry.json")) == b'{"x": 1}'
    assert [shards.has(row, "geometry.json") for row in range(3)] == [True, False, False]
    assert not shards.has(0, "truth.npy")
    with pytest.raises(KeyError, match=r"b%2E1 has no part 'geometry\.json'"):
        shards.read(1, "geometry.json")


def test_pickled_reader_opens_the_shards_anew(shard: tuple[Path, list[dict[str, Any]]]) -> None:
    shards = read_back(shard[0].parent, shard[1])
    before = shards.array(0, "image.npy")
    again = pickle.loads(pickle.dumps(shards))
    np.testing.assert_array_equal(again.array(0, "image.npy"), before)


def test_arrays_outlive_the_shards_that_are_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader, "OPEN_SHARDS", 1)
    rows = []
    for i in range(3):
        rows += write_shard(str(tmp_path / f"{i}.tar"), [({"key": str(i)}, {"x.npy": npy_bytes(np.full(99, i))})])
    shards = read_back(tmp_path, rows)
    arrays = [shards.array(row, "x.npy") for row in (0, 1, 2, 0)]
    assert [set(array) for array in arrays] == [{0}, {1}, {2}, {0}]


@given(array=npst.arrays(st.sampled_from([np.uint8, np.int16, ">i4", np.float32, np.float64]), npst.array_shapes()))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_array_comes_back(tmp_path: Path, array: np.ndarray) -> None:
    for variant in (array, np.asfortranarray(array), array[..., ::-1]):
        rows = write_shard(str(tmp_path / "any.tar"), [({"key": "k"}, {"x.npy": npy_bytes(variant)})])
        found = read_back(tmp_path, rows).array(0, "x.npy")
        np.testing.assert_array_equal(found, variant)
        assert found.dtype == variant.dtype


def fortran_order(data: bytes) -> bytes:
    return data.replace(b"'fortran_order': False", b"'fortran_order': True ")


def objects(data: bytes) -> bytes:
    return data.replace(b"'<f4'", b"'|O' ")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda data: b"\x94" + data[1:], r"(?s)a\.image\.npy: not a version 1 \.npy file.*write the shards again"),
        (lambda data: data[:6] + b"\x02" + data[7:], "not a version 1"),
        (lambda data: b"", "not a version 1"),
        (fortran_order, "unsupported .npy member"),
        (objects, "unsupported .npy member"),
    ],
)
def test_what_is_no_plain_array_is_refused(tmp_path: Path, damage: Callable[[bytes], bytes], message: str) -> None:
    data = damage(npy_bytes(IMAGE))
    rows = write_shard(str(tmp_path / "bad.tar"), [({"key": "a"}, {"image.npy": data})])
    with pytest.raises(DataError, match=message):
        read_back(tmp_path, rows).array(0, "image.npy")


@pytest.fixture
def remote(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Mapping[str, Path]:
    """A store that only ``storage.copy`` reaches, and the folder of the local cache."""
    store, cache = tmp_path / "store", tmp_path / "cache"
    monkeypatch.setenv("UNETFLOW_CACHE", str(cache))

    def copy(source: str, target: str) -> None:
        storage.write_bytes(target, (store / source.removeprefix("mock://store/")).read_bytes())

    monkeypatch.setattr(reader.storage, "copy", copy)
    return {"store": store, "cache": cache / "shards"}


def test_remote_shards_are_fetched_once_into_a_bounded_cache(remote: Mapping[str, Path]) -> None:
    array = np.zeros(600_000, np.uint8)
    rows = []
    for i in range(3):
        rows += write_shard(str(remote["store"] / f"{i}.tar"), [({"key": str(i)}, {"x.npy": npy_bytes(array + i)})])
    shards = ShardReader(pa.Table.from_pylist(rows), "mock://store", cache_megabytes=1)
    for row in range(3):
        assert shards.array(row, "x.npy")[-1] == row
    assert {path.name for path in remote["cache"].iterdir()} == {"1.tar", "2.tar"}  # over the limit: the oldest goes
    (remote["cache"] / ".partial-0-9.tar").write_bytes(bytes(2 << 20))  # another process is downloading it
    assert ShardReader(pa.Table.from_pylist(rows), "mock://store", cache_megabytes=1).array(0, "x.npy")[-1] == 0
    assert (remote["cache"] / ".partial-0-9.tar").exists()
    (remote["store"] / "2.tar").unlink()
    again = ShardReader(pa.Table.from_pylist(rows), "mock://store", cache_megabytes=1)
    assert again.array(2, "x.npy")[-1] == 2


def place_of(rows: list[dict[str, Any]], row: int, part: str) -> int:
    return int(rows[row][f"offset:{part}"])


def flip(path: Path, offset: int) -> None:
    data = bytearray(path.read_bytes())
    data[offset] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize(
    "place", [0, 40, IMAGE.nbytes + 127, -512, -1], ids=["magic", "shape", "last", "name", "header"]
)
def test_flipped_byte_is_named_at_the_first_read(shard: tuple[Path, list[dict[str, Any]]], place: int) -> None:
    path, rows = shard
    start = place_of(rows, 1, "image.npy")
    flip(path, start + place)
    shards = read_back(path.parent, rows)
    shards.array(0, "image.npy")
    for _ in range(2):
        with pytest.raises(DataError) as caught:
            shards.array(1, "image.npy")
    (problem,) = caught.value.problems
    assert (problem.rule, problem.path) == ("damaged-shard", str(path))
    size = len(npy_bytes(IMAGE))
    found, expected = problem.message.split("its CRC-32 is ")[1].split(", the index says ")
    assert problem.message.startswith(f"b%2E1.image.npy, {size} bytes from byte {start}: ")
    assert expected == f"{rows[1]['crc32:image.npy']:08x}" != found
    assert "--verify" in problem.remedy
    assert "`unetflow verify`" in problem.remedy


@pytest.mark.parametrize("size", [0, 4096])
def test_truncated_shard_is_named_at_the_first_read(shard: tuple[Path, list[dict[str, Any]]], size: int) -> None:
    path, rows = shard
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(DataError, match=rf"damaged-shard.*\n.*a\.mask\.npy.*the shard ends at byte {size}"):
        read_back(path.parent, rows).array(0, "mask.npy")


def test_shard_truncated_after_a_part_was_checked_is_named_when_it_is_opened_again(
    shard: tuple[Path, list[dict[str, Any]]],
) -> None:
    path, rows = shard
    shards = read_back(path.parent, rows)
    shards.array(1, "mask.npy")
    path.write_bytes(path.read_bytes()[:4096])
    shards._open.clear()
    with pytest.raises(DataError, match="the shard ends at byte 4096"):
        shards.array(1, "mask.npy")


def test_shard_that_is_gone_is_named(shard: tuple[Path, list[dict[str, Any]]]) -> None:
    path, rows = shard
    path.unlink()
    with pytest.raises(DataError, match=rf"missing-shard.*\n  {path}: there is no such file"):
        read_back(path.parent, rows).array(0, "image.npy")


def test_another_process_checks_again(shard: tuple[Path, list[dict[str, Any]]]) -> None:
    path, rows = shard
    shards = read_back(path.parent, rows)
    shards.read(0, "geometry.json")
    flip(path, place_of(rows, 0, "geometry.json"))
    with pytest.raises(DataError, match=r"a\.geometry\.json"):
        pickle.loads(pickle.dumps(shards)).read(0, "geometry.json")


def test_damaged_copy_in_the_cache_is_fetched_again(
    remote: Mapping[str, Path], caplog: pytest.LogCaptureFixture
) -> None:
    rows = write_shard(str(remote["store"] / "0.tar"), [({"key": "k"}, {"txt": b"text"})])
    shards = ShardReader(pa.Table.from_pylist(rows), "mock://store")
    shards.read(0, "txt")
    flip(remote["cache"] / "0.tar", place_of(rows, 0, "txt"))
    again = pickle.loads(pickle.dumps(shards))
    assert bytes(again.read(0, "txt")) == b"text"
    assert "mock://store/0.tar: its copy in the cache is damaged and fetched again" in caplog.text
    flip(remote["store"] / "0.tar", place_of(rows, 0, "txt"))
    (remote["cache"] / "0.tar").unlink()
    with pytest.raises(DataError, match=r"mock://store/0\.tar: k\.txt, 4 bytes from byte 512"):
        pickle.loads(pickle.dumps(shards)).read(0, "txt")
    (remote["store"] / "0.tar").unlink()
    with pytest.raises(DataError, match=r"missing-shard.*\n  mock://store/0\.tar: there is no such file"):
        pickle.loads(pickle.dumps(shards)).read(0, "txt")
