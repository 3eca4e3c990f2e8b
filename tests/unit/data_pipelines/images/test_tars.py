"""WebDataset tars, and every rule that their members can break."""

from __future__ import annotations

import tarfile
from pathlib import Path
from typing import IO, Any

import pytest

from tests.support.captioned import captions, find, listed, touch, write_tar


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
    (tmp_path / "no.tar").write_bytes(b"not a tar at all" * 100)
    found = find(tmp_path)
    assert captions(found) == {"t/a": "fine"}
    assert listed(found) == {"t": "unreadable", "t/b": "image-missing", "no": "unreadable"}
    assert "after 3 members: b.jpg goes beyond the end" in next(p.message for p in found.problems if p.case_id == "t")


def test_damaged_header_in_the_middle_is_not_the_end(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "t.tar", {f"{name}.{kind}": b"x" for name in "abc" for kind in ("txt", "jpg")})
    data = bytearray(path.read_bytes())
    data[2 * 1024] ^= 1  # the first letter of b.txt
    path.write_bytes(data)
    found = find(tmp_path)
    assert captions(found) == {"t/a": "x"}
    assert listed(found) == {"t": "unreadable"}
    assert "after 2 members: the header at byte 2048 is damaged" in found.problems[0].message


@pytest.mark.parametrize("blocks", [0, 1, 4000])
def test_joined_archives_are_named(tmp_path: Path, blocks: int) -> None:
    """tarfile stops at the first end mark; however much padding follows it."""
    first = write_tar(tmp_path / "a.tar", {"a.jpg": b"x", "a.txt": b"one"})
    second = write_tar(tmp_path / "b.tar", {"b.jpg": b"x", "b.txt": b"two"})
    data, padding = first.read_bytes(), bytes(512 * blocks)
    (tmp_path / "all.tar").write_bytes(data + padding + second.read_bytes())
    second.write_bytes(second.read_bytes() + padding)
    found = find(tmp_path)
    assert captions(found) == {"a/a": "one", "all/a": "one", "b/b": "two"}
    assert listed(found) == {"all": "data-after-end"}
    place = len(data) + len(padding)
    assert f"ends at byte 2048, and the file continues with data at byte {place}" in found.problems[0].message


def test_tars_that_may_not_be_read_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_tar(tmp_path / "a.tar", {"a.jpg": b"x", "a.txt": b"one"})
    write_tar(tmp_path / "locked.tar", {"b.jpg": b"x", "b.txt": b"two"})
    original = Path.open

    def refused(self: Path, *args: Any, **options: Any) -> IO[Any]:
        if self.name == "locked.tar":
            raise PermissionError(13, "Permission denied", str(self))
        return original(self, *args, **options)

    monkeypatch.setattr(Path, "open", refused)
    found = find(tmp_path)
    assert captions(found) == {"a/a": "one"}
    assert listed(found) == {"locked": "no-permission"}


@pytest.mark.parametrize("magic", [b"\x1f\x8b\x08", b"\x28\xb5\x2f\xfd", b"\xfd7zXZ\0", b"BZh9"])
def test_compressed_tars_are_called_so(tmp_path: Path, magic: bytes) -> None:
    write_tar(tmp_path / "ok.tar", {"a.png": b"x", "a.txt": b"fine"})
    (tmp_path / "packed.tar").write_bytes(magic + b"x" * 2000)
    touch(tmp_path, "also.tar.gz")
    found = find(tmp_path)
    assert captions(found) == {"ok/a": "fine"}
    assert listed(found) == {"packed": "compressed-archive", "also.tar.gz": "compressed-archive"}
    assert "decompress it" in found.problems[0].remedy


def test_dots_in_names_are_named(tmp_path: Path) -> None:
    members = {
        "22.05.png": b"x",
        "22.05.txt": b"May",
        "a.png": b"x",
        "a.txt": b"a",
        "a.v2.png": b"x",
        "a.v2.caption": b"another picture, with its own caption",
        "b.png": b"x",
        "b.txt": b"b",
        "b.mask.png": b"not a picture of its own",
        "v1.0/c.png": b"x",
        "v1.0/c.txt": b"dots in folders are no trouble",
    }
    write_tar(tmp_path / "0.tar", members)
    found = find(tmp_path)
    assert set(captions(found)) == {"0/b", "0/v1.0/c"}
    assert listed(found) == {"0/22": "dots-in-key", "0/a": "dots-in-key"}
    assert "22.05.png has dots in its name" in found.problems[0].message
    assert "`05.png` of `22`" in found.problems[0].message


def test_captions_of_tars_in_order_of_choice_and_lists(tmp_path: Path) -> None:
    members = {
        "a.png": b"x",
        "a.caption": b"of a.caption",
        "a.json": b'{"caption": "of a.json"}',
        "b.png": b"x",
        "b.json": b'{"caption": ["one", "two", "one"]}',
    }
    write_tar(tmp_path / "0.tar", members)
    found = find(tmp_path).examples
    assert [(example.caption, example.more_captions) for example in found] == [("of a.caption", ()), ("one", ("two",))]
