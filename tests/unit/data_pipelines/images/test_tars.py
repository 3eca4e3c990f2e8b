"""Parquet files and WebDataset tars, and every rule that their rows and members can break."""

from __future__ import annotations

import tarfile
from pathlib import Path

import pyarrow as pa
import pytest

from tests.support.captioned import captions, find, listed, touch, write_parquet, write_tar


@pytest.mark.parametrize("caption", ["caption", "text", "TEXT"])
@pytest.mark.parametrize(
    ("image", "kind"),
    [
        ("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
        ("image", pa.binary()),
        ("jpg", pa.large_binary()),
        ("bytes", pa.binary()),
    ],
)
def test_parquet(tmp_path: Path, caption: str, image: str, kind: pa.DataType) -> None:
    value = {"bytes": b"x", "path": "p"} if pa.types.is_struct(kind) else b"x"
    columns = {image: pa.array([value, value], kind), caption: ["one", " two "], "label": [1, 2]}
    path = write_parquet(tmp_path / "data/train.parquet", **columns)
    found = find(tmp_path)
    assert captions(found) == {"data/train/000000": "one", "data/train/000001": "two"}
    assert [(example.image, example.part) for example in found.examples] == [(str(path), 0), (str(path), 1)]
    assert found.metadata == {"layout": "parquet"}


def test_parquet_faults(tmp_path: Path) -> None:
    images = pa.array([b"x"] * 4, pa.binary())
    texts = pa.array([b"fine", None, b"caf\xe9", b" "], pa.binary()).cast(pa.string(), safe=False)
    write_parquet(tmp_path / "rows.parquet", image=images, caption=texts)
    write_parquet(tmp_path / "noimage.parquet", url=["u"], caption=["c"])
    write_parquet(tmp_path / "nocaption.parquet", image=images)
    write_parquet(tmp_path / "lists.parquet", image=images, caption=[["a"]] * 4)
    whole = (tmp_path / "rows.parquet").read_bytes()
    (tmp_path / "cut.parquet").write_bytes(whole[: len(whole) // 2])
    found = find(tmp_path)
    assert captions(found) == {"rows/000000": "fine"}
    assert listed(found) == {
        "rows/000001": "caption-not-text",
        "rows/000002": "caption-not-utf8",
        "rows/000003": "caption-empty",
        "noimage": "no-image-column",
        "nocaption": "caption-missing",
        "lists": "caption-not-text",
        "cut": "unreadable",
    }
    by_id = {problem.case_id: problem for problem in found.problems}
    assert by_id["rows/000001"].path.endswith("rows.parquet: row 1")
    assert "url: string, caption: string" in by_id["noimage"].message


def test_dictionary_captions(tmp_path: Path) -> None:
    write_parquet(tmp_path / "d.parquet", image=[b"x", b"y"], caption=pa.array(["a", "a"]).dictionary_encode())
    assert captions(find(tmp_path)) == {"d/000000": "a", "d/000001": "a"}


def test_tars(tmp_path: Path) -> None:
    members = {
        "000000.jpg": b"J" * 700,
        "000000.txt": b"a cat\n",
        "000000.json": b'{"caption": "not this one"}',
        "000001.png": b"P",
        "000001.json": b'{"caption": "a dog"}',
        "sub/2.x.JPG": b"ignored, its extension is x.jpg",
        "sub/2.webp": b"W",
        "sub/2.txt": b"a cow",
        "._000003.jpg": b"of macOS",
        "sub/long_" + "n" * 120 + ".jpg": b"L" * 3,
        "sub/long_" + "n" * 120 + ".txt": b"long",
    }
    path = write_tar(tmp_path / "00000.tar", members)
    touch(tmp_path, "00000.parquet", "00000_stats.json")
    found = find(tmp_path)
    assert found.problems == ()
    assert captions(found) == {
        "00000/000000": "a cat",
        "00000/000001": "a dog",
        "00000/sub/2": "a cow",
        "00000/sub/long_" + "n" * 120: "long",
    }
    content = path.read_bytes()
    for example in found.examples:
        assert example.place is not None
        offset, size = example.place
        assert content[offset : offset + size] == members[str(example.part)]


def test_tar_faults(tmp_path: Path) -> None:
    members = [
        ("ok.jpg", b"x"),
        ("ok.txt", b"fine"),
        ("bare.jpg", b"x"),
        ("orphan.txt", b"nobody"),
        ("two.jpg", b"x"),
        ("two.png", b"x"),
        ("two.txt", b"t"),
        ("again.jpg", b"x"),
        ("again.jpg", b"y"),
        ("again.txt", b"t"),
        ("latin.jpg", b"x"),
        ("latin.txt", b"caf\xe9"),
        ("../up.jpg", b"x"),
        ("/abs.txt", b"x"),
    ]
    path = write_tar(tmp_path / "t.tar", members)
    with tarfile.open(path, "a") as archive:
        link = tarfile.TarInfo("link.jpg")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    found = find(tmp_path)
    assert captions(found) == {"t/ok": "fine"}
    assert listed(found) == {
        "t/bare": "caption-missing",
        "t/orphan": "image-missing",
        "t/two": "duplicate-id",
        "t/again": "duplicate-id",
        "t/latin": "caption-not-utf8",
        "t/../up.jpg": "unsafe-path",
        "t//abs.txt": "unsafe-path",
        "t/link.jpg": "not-a-file",
    }


def test_tar_that_is_cut_short_gives_what_comes_before(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "t.tar", {"a.txt": b"fine", "a.jpg": b"x", "b.txt": b"cut", "b.jpg": b"x" * 5000})
    path.write_bytes(path.read_bytes()[:5000])
    (tmp_path / "gz.tar").write_bytes(b"\x1f\x8b not a tar at all" * 100)
    found = find(tmp_path)
    assert captions(found) == {"t/a": "fine"}
    assert listed(found) == {"t": "unreadable", "t/b": "image-missing", "gz": "unreadable"}
    assert "after 3 members: b.jpg goes beyond the end" in next(p.message for p in found.problems if p.case_id == "t")
