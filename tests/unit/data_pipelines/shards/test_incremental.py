"""Incremental sharding: what is known already, and how the rest is grouped."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from data_pipelines.processes import this_process
from data_pipelines.shards.incremental import Known, any_row, group_by_size, read_known, sample_key, shard_missing
from data_pipelines.shards.writer import npy_bytes, write_shard


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    """Two shards of two samples each: a0, a1, b0 and b1."""
    for name in ("a", "b"):
        samples = [sample(f"{name}{i}") for i in range(2)]
        write_shard(str(tmp_path / f"{name}.tar"), samples)
    return tmp_path


def sample(name: str) -> tuple[dict[str, str], dict[str, bytes]]:
    row = {"key": name, "case_id": name, "digest": f"digest of {name}"}
    return row, {"x.npy": npy_bytes(np.arange(999)), "txt": name.encode()}


def known(shards: Path, *, verify: bool = False) -> Known:
    return read_known(str(shards), any_row, verify=verify)


def keys(found: Known) -> list[str]:
    return [row["key"] for row in found.rows.values()]


def flip(path: Path, offset: int) -> None:
    data = bytearray(path.read_bytes())
    data[offset] ^= 1
    path.write_bytes(data)


def test_shard_whose_tar_was_cut_short_counts_as_missing(shards: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert keys(known(shards)) == ["a0", "a1", "b0", "b1"]
    (shards / "a.tar").write_bytes((shards / "a.tar").read_bytes()[:4096])
    assert keys(known(shards)) == ["b0", "b1"]
    assert known(shards).former == {"digest of a0": "a.tar", "digest of a1": "a.tar"}
    assert "a.tar: it is missing or truncated; its samples are sharded again" in caplog.text
    (shards / "b.tar").unlink()
    assert not known(shards).rows


@pytest.mark.parametrize("part", ["x.npy", "txt"])
def test_flipped_byte_is_found_where_all_bytes_are_to_be_checked(
    shards: Path, part: str, caplog: pytest.LogCaptureFixture
) -> None:
    flip(shards / "b.tar", known(shards).rows["digest of b1"][f"offset:{part}"])
    assert keys(known(shards)) == ["a0", "a1", "b0", "b1"]
    found = known(shards, verify=True)
    assert (keys(found), list(found.former.values())) == (["a0", "a1"], ["b.tar", "b.tar"])
    assert f"b.tar: b1.{part}, " in caplog.text
    assert "its samples are sharded again" in caplog.text


@pytest.mark.parametrize("place", [b"digest of a0", b"PAR1"])
def test_shard_whose_rows_are_damaged_is_made_again(
    shards: Path, place: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    path = shards / "a.parquet"
    flip(path, path.read_bytes().index(place, 4) + len(place) - 1)
    assert keys(known(shards)) == ["b0", "b1"]
    assert "a.parquet: not a whole Parquet file: " in caplog.text


@pytest.mark.parametrize("names", [(b"case_id", b"case_ie"), (b"offset:txt", b"offset:tyt")])
def test_shard_whose_columns_are_damaged_is_made_again(shards: Path, names: tuple[bytes, bytes]) -> None:
    path = shards / "a.parquet"
    path.write_bytes(path.read_bytes().replace(*names))
    assert keys(known(shards)) == ["b0", "b1"]


def test_damaged_sample_in_a_tar_of_the_user_is_a_problem_of_its_case(shards: Path, tmp_path: Path) -> None:
    own = {row["case_id"]: row for row in known(shards).rows.values()}
    folder = tmp_path / "adopting"
    adopted = [(row | {"shard": str(shards / "a.tar")}, {}) for row in (own["a0"], own["a1"])]
    write_shard(str(folder / "c.tar"), [*adopted, sample("c0")])
    flip(shards / "a.tar", own["a1"]["offset:x.npy"])
    found = known(folder, verify=True)
    assert keys(found) == ["a0", "c0"] or keys(found) == ["c0", "a0"]
    (problem,) = found.problems
    assert (problem.rule, problem.path, problem.case_id) == ("damaged-shard", str(shards / "a.tar"), "a1")
    assert problem.message.startswith("a1.x.npy, ")
    assert problem.remedy == "copy the archive again from its source"
    (shards / "a.tar").unlink()
    assert {problem.rule for problem in known(folder, verify=True).problems} == {"missing-shard"}


def test_what_a_killed_writer_left_is_removed(shards: Path) -> None:
    """Of the process before this one with the same number: it is gone."""
    machine, number, started = this_process().split("-")
    left, live = (shards / f".partial-{machine}-{number}-{int(started) - ago}_1234-c.tar" for ago in (1, 0))
    left.touch()
    live.touch()
    shard_missing({}, str(shards), lambda _: [], lambda _: ([], []), "cases")
    assert (left.exists(), live.exists()) == (False, True)


def test_keys_are_those_of_one_sample_alone() -> None:
    keys = {"s/a.b": "s%2Fa%2Eb", "é_1-2": "é_1-2", "cat’": "cat%E2%80%99", "cat 19": "cat%2019", "100%": "100%25"}
    assert {sample_id: sample_key(sample_id) for sample_id in keys} == keys


def test_group_by_size() -> None:
    groups = list(group_by_size([1.0, 2.0, 9.0, 1.0, 1.0, 1.0, 1.0], float, 3.0, 3))
    assert groups == [[1, 2], [9], [1, 1, 1], [1]]
    assert list(group_by_size([], float, 3.0, 3)) == []
