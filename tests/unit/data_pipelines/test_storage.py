"""Storage: a file appears whole or not at all, whatever happens on the way."""

from __future__ import annotations

import gzip
import hashlib
from pathlib import Path

import pyarrow.fs
import pytest

from data_pipelines import storage


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*"))


@pytest.mark.parametrize("prefix", ["", "file://"])
def test_file_appears_when_the_block_ends(tmp_path: Path, prefix: str) -> None:
    target = tmp_path / "new folder" / "a.bin"
    with storage.local_copy_of(f"{prefix}{target}") as path:
        path.write_bytes(b"abc")
        assert not target.exists()
        assert path.parent == target.parent  # the same file system, so that renaming is atomic
    assert target.read_bytes() == b"abc"
    assert names(target.parent) == ["a.bin"]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
@pytest.mark.parametrize("written", [None, b"", b"half"])
def test_failure_leaves_nothing(tmp_path: Path, error: type[BaseException], written: bytes | None) -> None:
    def fail() -> None:
        with storage.local_copy_of(str(tmp_path / "a.bin")) as path:
            if written is not None:
                path.write_bytes(written)
            raise error

    with pytest.raises(error):
        fail()
    assert names(tmp_path) == []


def test_failure_leaves_the_older_file(tmp_path: Path) -> None:
    target = tmp_path / "a.bin"
    storage.write_bytes(str(target), b"old")

    def fail() -> None:
        with storage.local_copy_of(str(target)) as path:
            path.write_bytes(b"new and much longer")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert target.read_bytes() == b"old"
    assert names(tmp_path) == ["a.bin"]


def test_two_writers_at_once_do_not_mix(tmp_path: Path) -> None:
    target = tmp_path / "a.bin"
    with storage.local_copy_of(str(target)) as first:
        first.write_bytes(b"first")
        with storage.local_copy_of(str(target)) as second:
            assert second != first
            second.write_bytes(b"second")
        assert target.read_bytes() == b"second"
    assert target.read_bytes() == b"first"
    assert names(tmp_path) == ["a.bin"]


def test_forgotten_write_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), storage.local_copy_of(str(tmp_path / "a.bin")):
        pass
    assert names(tmp_path) == []


def test_reading_and_asking(tmp_path: Path) -> None:
    uri = str(tmp_path / "folder" / "a.bin")
    assert storage.size(uri) is None
    assert storage.stamp(uri) is None
    assert storage.list_names(str(tmp_path / "folder")) == []
    storage.write_bytes(uri, b"abc")
    assert storage.size(str(tmp_path / "folder")) is None  # a folder is no file
    assert storage.size(f"{uri}/x") is None
    assert storage.stamp(uri) == (3, Path(uri).stat().st_mtime_ns)
    assert storage.size(uri) == 3
    assert storage.read_bytes(f"file://{uri}") == b"abc"
    assert storage.digest(uri) == hashlib.sha256(b"abc").hexdigest()
    storage.write_bytes(str(tmp_path / "folder" / "B"), b"")
    (tmp_path / "folder" / ".hidden").touch()
    with storage.local_copy_of(str(tmp_path / "folder" / "c.nii.gz")) as path:
        path.touch()
        assert path.name.endswith("c.nii.gz")  # some writers go by the suffix
        assert storage.list_names(str(tmp_path / "folder")) == ["B", "a.bin"]
    assert storage.list_names(str(tmp_path / "folder")) == ["B", "a.bin", "c.nii.gz"]


def test_copies_are_whole_or_absent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "CHUNK", 2)
    source, target = str(tmp_path / "from" / "a"), str(tmp_path / "to" / "a")
    storage.write_bytes(source, b"abcde")
    storage.copy(source, target)
    assert storage.read_bytes(target) == b"abcde"
    with pytest.raises(FileNotFoundError):
        storage.copy(str(tmp_path / "from" / "ghost"), str(tmp_path / "to" / "ghost"))
    assert names(tmp_path / "to") == ["a"]


def test_folders_are_copied_file_by_file(tmp_path: Path) -> None:
    for name in ("a", "b", "c/d/e", ".hidden", "c/.hidden/f"):
        storage.write_bytes(str(tmp_path / "from" / name), name.encode())
    storage.copy_folder(str(tmp_path / "from"), str(tmp_path / "to"))
    copied = [path for path in (tmp_path / "to").rglob("*") if path.is_file()]
    found = {str(path.relative_to(tmp_path / "to")): path.read_bytes() for path in copied}
    assert found == {"a": b"a", "b": b"b", "c/d/e": b"c/d/e"}


def test_compressed_files_stay_as_they_are(tmp_path: Path) -> None:
    """pyarrow would decompress by the suffix."""
    data = gzip.compress(b"abc" * 99)
    source, target = str(tmp_path / "a.nii.gz"), str(tmp_path / "b.nii.gz")
    storage.write_bytes(source, data)
    storage.copy(source, target)
    assert Path(target).read_bytes() == storage.read_bytes(source) == data
    assert storage.digest(source) == hashlib.sha256(data).hexdigest()


@pytest.fixture
def object_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """``s3://bucket`` lies in ``tmp_path``."""
    monkeypatch.setenv("UNETFLOW_CACHE", str(tmp_path / "cache"))
    store = pyarrow.fs.SubTreeFileSystem(str(tmp_path), pyarrow.fs.LocalFileSystem())
    (tmp_path / "bucket").mkdir()
    local = storage.resolve
    monkeypatch.setattr(
        storage, "resolve", lambda uri: (store, uri.removeprefix("s3://")) if uri.startswith("s3://") else local(uri)
    )


@pytest.mark.usefixtures("object_store")
def test_a_remote_file_is_here_for_the_length_of_the_block(tmp_path: Path) -> None:
    storage.write_bytes("s3://bucket/a.bin", b"abc")
    with storage.local_file("s3://bucket/a.bin") as path:
        assert (path.name, path.read_bytes()) == ("a.bin", b"abc")
    assert not path.exists()
    with storage.local_file(str(tmp_path / "bucket" / "a.bin")) as path:
        assert path == tmp_path / "bucket" / "a.bin"
    assert path.exists()


@pytest.mark.usefixtures("object_store")
def test_object_stores_get_the_finished_file_only(tmp_path: Path) -> None:
    storage.write_bytes("s3://bucket/a", b"abc")
    assert storage.read_bytes("s3://bucket/a") == b"abc"
    assert storage.stamp("s3://bucket/a") == (3, (tmp_path / "bucket" / "a").stat().st_mtime_ns)
    assert storage.size("s3://bucket/none") is None

    def fail() -> None:
        with storage.local_copy_of("s3://bucket/b") as path:
            path.write_bytes(b"half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert names(tmp_path / "bucket") == ["a"]
    assert names(tmp_path / "cache") == []


def test_uris() -> None:
    assert storage.join("s3://bucket/x/", "a", "b") == "s3://bucket/x/a/b"
    assert storage.join("here", "a") == "here/a"
    assert [storage.is_local(uri) for uri in ("a/b", "/a", "file:///a", "s3://a/b", "gs://a/b")] == [True] * 3 + [
        False
    ] * 2
    assert storage.local_path("file:///a/b") == Path("/a/b")
    assert storage.local_path("a").is_absolute()


def test_cache_folder_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("UNETFLOW_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert storage.cache_folder() == tmp_path / ".cache" / "unetflow"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert storage.cache_folder() == tmp_path / "xdg" / "unetflow"
    monkeypatch.setenv("UNETFLOW_CACHE", str(tmp_path / "own"))
    assert storage.cache_folder() == tmp_path / "own"
    assert storage.generated_folder() == tmp_path / "own" / "generated"


def test_stamps_of_a_folder(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    (tmp_path / ".hidden").touch()
    (tmp_path / "folder").mkdir()
    assert storage.list_stamps(str(tmp_path)) == {"a": (3, (tmp_path / "a").stat().st_mtime_ns)}
    assert storage.list_stamps(str(tmp_path / "none")) == {}
