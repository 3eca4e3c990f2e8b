"""Digests of cases: over the bytes of all their files, in order."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from data_pipelines import storage
from data_pipelines.digests import digest_of
from data_pipelines.volumes.cases import Case, case_digests


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Two files in a folder of their own, and an empty cache."""
    monkeypatch.setenv("UNETFLOW_CACHE", str(tmp_path / "cache"))
    (tmp_path / "data").mkdir()
    paths = [tmp_path / "data" / name for name in ("a", "b")]
    for path in paths:
        path.write_bytes(path.name.encode() * 10)
    return paths


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_case_digest_depends_on_the_bytes_and_their_order(files: list[Path]) -> None:
    a, b = map(str, files)

    def digest(images: tuple[str, ...], label: str) -> str:
        return case_digests([Case("one", images, label, "one")])[0]["one"]

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
    before = case_digests([case])[0]["one"]
    (folder / "slice3").write_bytes(b"x")
    assert case_digests([case])[0]["one"] != before


def test_cases_that_cannot_be_read_are_problems(files: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """A file without permission, one that a disk gives no more, one that is gone, and a folder that is locked."""
    good, gone, locked = files[0], files[0].with_name("gone"), files[0].with_name("locked")
    original, listed = storage.digest, Path.iterdir
    faults = {"b": PermissionError(13, "no"), "c": OSError(5, "bad")}
    files[1].with_name("c").write_bytes(b"c")
    locked.mkdir()

    def digest(uri: str) -> str:
        if fault := faults.get(Path(uri).name):
            raise fault
        return original(uri)

    def listing(self: Path) -> Iterator[Path]:
        if self == locked:
            raise PermissionError(13, "no")
        return listed(self)

    monkeypatch.setattr(storage, "digest", digest)
    monkeypatch.setattr(Path, "iterdir", listing)
    paths = {"a": good, "b": files[1], "c": files[1].with_name("c"), "gone": gone, "locked": locked}
    digests, problems = case_digests([Case(name, (str(path),), str(good), name) for name, path in paths.items()])
    assert set(digests) == {"a"}
    assert {problem.case_id: (problem.rule, problem.path) for problem in problems} == {
        "b": ("no-permission", str(paths["b"])),
        "c": ("unreadable", str(paths["c"])),
        "gone": ("file-missing", str(gone)),
        "locked": ("no-permission", str(locked)),
    }


def test_case_digest_leaves_out_what_is_no_slice(files: list[Path]) -> None:
    folder = files[0].parent
    label = folder.with_name("label")
    label.write_bytes(b"label")
    case = Case("one", (str(folder),), str(label), "one")
    (folder / "nested").mkdir()
    for name in ("._a", "DICOMDIR", "nested/c"):
        (folder / name).write_bytes(b"x")
    expected = digest_of([sha256(path) for path in (*files, label)])
    assert case_digests([case])[0]["one"] == expected


def test_case_digest_covers_the_voxels_of_a_detached_header(files: list[Path]) -> None:
    header, voxels = files[0].with_name("a.mhd"), files[0].with_name("a.raw")
    header.write_text("ElementDataFile = a.raw\n")
    voxels.write_bytes(b"1")
    case = Case("one", (str(header),), str(files[1]), "one")
    before = case_digests([case])[0]["one"]
    voxels.write_bytes(b"22")
    assert case_digests([case])[0]["one"] != before
