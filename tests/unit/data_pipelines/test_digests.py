"""Digests of source files: right after any change, and without reading again what did not change."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_pipelines import storage
from data_pipelines.digests import digest_of, file_digests
from data_pipelines.volumes.cases import Case, case_digests


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


def test_case_digest_depends_on_the_bytes_and_their_order(files: list[Path]) -> None:
    a, b = map(str, files)

    def digest(images: tuple[str, ...], label: str) -> str:
        return case_digests([Case("one", images, label, "one")])["one"]

    assert digest((a,), b) == digest_of([sha256(files[0]), sha256(files[1])])
    assert len({digest((a,), b), digest((b,), a), digest((a, a), b)}) == 3
    before = digest((a,), b)
    moved = files[1].rename(files[1].with_name("moved"))
    assert digest((a,), str(moved)) == before


def test_case_digest_covers_every_slice_of_a_series(files: list[Path]) -> None:
    folder = files[0].parent
    label = folder.with_name("label")
    label.write_bytes(b"label")
    case = Case("one", (str(folder),), str(label), "one")
    before = case_digests([case])["one"]
    (folder / "slice3").write_bytes(b"x")
    assert case_digests([case])["one"] != before


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
