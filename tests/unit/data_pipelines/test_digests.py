"""Digests of source files: right after any change, and without reading again what did not change."""

from __future__ import annotations

import errno
import hashlib
import os
from pathlib import Path

import pyarrow.fs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_pipelines import storage
from data_pipelines.digests import digest_of, file_digests, try_file_digests, uri_digests


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNETFLOW_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files whose bytes are read, as they are."""
    names: list[str] = []
    original = storage.digest

    def recorded(uri: str) -> str:
        names.append(Path(uri).name)
        return original(uri)

    monkeypatch.setattr(storage, "digest", recorded)
    return names


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    """Two files whose modification time is a second ago."""
    folder = tmp_path / "data"
    folder.mkdir()
    paths = [folder / "a", folder / "b"]
    for path in paths:
        path.write_bytes(path.name.encode() * 10)
        os.utime(path, ns=(0, 1_700_000_000_000_000_000))
    return paths


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_digest_is_that_of_the_bytes_and_remembered(files: list[Path], read: list[str]) -> None:
    assert file_digests(files) == {path: sha256(path) for path in files}
    assert sorted(read) == ["a", "b"]
    assert file_digests(reversed(files)) == {path: sha256(path) for path in files}
    assert sorted(read) == ["a", "b"]


def test_other_time_same_bytes_is_read_again_and_equal(files: list[Path], read: list[str]) -> None:
    before = file_digests(files)
    os.utime(files[0], ns=(0, 1_700_000_000_000_000_001))  # one nanosecond
    assert file_digests(files) == before
    assert read[2:] == ["a"]
    assert file_digests(files) == before
    assert read[3:] == []


def test_other_bytes_of_the_same_size_are_seen_by_their_time(files: list[Path], read: list[str]) -> None:
    before = file_digests(files)
    files[1].write_bytes(b"c" * 10)
    after = file_digests(files)
    assert read[2:] == ["b"]
    assert after == {path: sha256(path) for path in files}
    assert after[files[1]] != before[files[1]]


def test_other_size_is_seen_even_at_the_same_time(files: list[Path], read: list[str]) -> None:
    file_digests(files)
    files[1].write_bytes(b"b" * 11)
    os.utime(files[1], ns=(0, 1_700_000_000_000_000_000))
    assert file_digests(files)[files[1]] == sha256(files[1])
    assert read[2:] == ["b"]


def test_new_and_removed_files(files: list[Path], read: list[str]) -> None:
    file_digests(files)
    extra = files[0].with_name("c")
    extra.write_bytes(b"new")
    assert file_digests([files[0], extra]) == {path: sha256(path) for path in (files[0], extra)}
    assert read[2:] == ["c"]


def test_memory_that_cannot_be_read_is_made_again(files: list[Path], read: list[str], tmp_path: Path) -> None:
    file_digests(files)
    (memory,) = (tmp_path / "cache" / "digests").iterdir()
    for content in ("", "{", "[]"):
        memory.write_text(content)
        del read[:]
        assert file_digests(files) == {path: sha256(path) for path in files}
        assert sorted(read) == ["a", "b"]


def test_a_missing_file_is_said_or_absent(files: list[Path]) -> None:
    ghost = files[0].with_name("ghost")
    with pytest.raises(FileNotFoundError, match="ghost"):
        file_digests([*files, ghost])
    assert uri_digests(map(str, [*files, ghost, ghost.parent])) == {str(path): sha256(path) for path in files}
    assert uri_digests([]) == {}


def test_files_that_cannot_be_read_do_not_hide_the_others(
    files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    locked, ghost = tmp_path / "data" / "locked", tmp_path / "data" / "ghost"
    fault: OSError = PermissionError(13, "no")
    original = storage.stamp

    def stamp(uri: str) -> storage.Stamp | None:
        if uri == str(locked):
            raise fault
        return original(uri)

    monkeypatch.setattr(storage, "stamp", stamp)
    digests, errors = try_file_digests([locked, *files, ghost])
    assert digests == {path: sha256(path) for path in files}
    assert (list(errors), errors[locked]) == ([locked, ghost], fault)
    assert isinstance(errors[ghost], FileNotFoundError)
    with pytest.raises(PermissionError):
        file_digests([locked, *files])
    fault = OSError(errno.ESTALE, "stale file handle")
    with pytest.raises(OSError, match="stale"):  # of the network, not of the file
        try_file_digests([locked, *files])


def test_uris_and_paths_share_what_is_remembered(files: list[Path], read: list[str]) -> None:
    before = file_digests(files)
    assert uri_digests(map(str, files)) == {str(path): digest for path, digest in before.items()}
    assert sorted(read) == ["a", "b"]


def test_a_part_of_the_files_leaves_the_others_remembered(files: list[Path], read: list[str]) -> None:
    file_digests(files)
    extra = files[0].with_name("c")
    extra.write_bytes(b"new")
    file_digests([extra])
    file_digests(files)
    assert sorted(read) == ["a", "b", "c"]


def test_damage_that_keeps_size_and_time_is_seen_without_trust_in_stamps(files: list[Path], read: list[str]) -> None:
    uris = [str(path) for path in files]
    before = uri_digests(uris)
    status = files[1].stat()
    files[1].write_bytes(b"X" + files[1].read_bytes()[1:])
    os.utime(files[1], ns=(status.st_atime_ns, status.st_mtime_ns))
    assert uri_digests(uris) == before
    assert len(read) == 2
    after = uri_digests(uris, trust_stamps=False)
    assert sorted(read[2:]) == ["a", "b"]
    assert after == {str(path): sha256(path) for path in files}
    assert after[uris[1]] != before[uris[1]]
    assert uri_digests(uris) == after  # the memory is refreshed
    assert len(read) == 4


def test_remote_files_are_remembered_by_what_the_store_says(
    files: list[Path], read: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    store = pyarrow.fs.SubTreeFileSystem(str(files[0].parent), pyarrow.fs.LocalFileSystem())
    local = storage.resolve
    monkeypatch.setattr(
        storage, "resolve", lambda uri: (store, uri.removeprefix("s3://")) if uri.startswith("s3://") else local(uri)
    )
    uris = ["s3://a", "s3://b", "s3://ghost"]
    expected = {f"s3://{path.name}": sha256(path) for path in files}
    assert uri_digests(uris) == expected
    assert uri_digests(uris) == expected
    assert sorted(read) == ["a", "b"]
    files[0].write_bytes(b"c")
    assert uri_digests(uris)["s3://a"] == sha256(files[0])
    assert sorted(read) == ["a", "a", "b"]


def test_a_file_whose_store_knows_no_time_is_always_read(
    files: list[Path], read: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage, "stamp", lambda uri: (10, 0))
    for _ in range(2):
        assert uri_digests([str(files[0])]) == {str(files[0]): sha256(files[0])}
    assert read == ["a", "a"]


def test_digest_of_literals() -> None:
    assert digest_of({"b": [1, None], "a": "é"}) == hashlib.sha256('{"a":"é","b":[1,null]}'.encode()).hexdigest()
    assert digest_of({"b": 1, "a": 2}) == digest_of({"a": 2, "b": 1})
    assert digest_of((1, 2)) == digest_of([1, 2])
    assert len({digest_of(v) for v in (1, 1.0, "1", [1], True, None)}) == 6
    with pytest.raises(ValueError, match="JSON"):
        digest_of(float("nan"))


@given(st.dictionaries(st.text(max_size=3), st.one_of(st.integers(), st.text(max_size=3)), max_size=4), st.randoms())
def test_digest_does_not_depend_on_the_order_of_keys(value: dict[str, int | str], random: object) -> None:
    items = list(value.items())
    random.shuffle(items)  # type: ignore[attr-defined]
    assert digest_of(dict(items)) == digest_of(value)
