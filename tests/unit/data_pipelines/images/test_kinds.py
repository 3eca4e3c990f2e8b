"""Formats by name and by first bytes: what is not supported is called so, and never damaged."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data_pipelines.errors import DataError, Problem
from data_pipelines.images import kinds
from data_pipelines.images.pictures import Picture, read_picture
from data_pipelines.images.specs import CaptionedSpec
from tests.support.captioned import captions, find, imagefolder, listed, touch, write_tar

SPEC = CaptionedSpec(resolution=16)


def problem(data: bytes) -> Problem:
    with pytest.raises(DataError) as raised:
        read_picture(data, "x.png", SPEC)
    (found,) = raised.value.problems
    return found


def avif(colour: tuple[int, int, int]) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (16, 16), colour).save(stream, "AVIF", quality=100)
    return stream.getvalue()


def test_avif_is_read() -> None:
    found = read_picture(avif((200, 30, 40)), "a.avif", SPEC)
    assert isinstance(found, Picture)
    assert found.extension == "png"
    assert np.abs(found.pixels.astype(int) - (200, 30, 40)).max() <= 3


def test_avif_without_its_decoder_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kinds, "_reads_avif", lambda: False)
    found = problem(avif((1, 2, 3)))
    assert found.rule == "unknown-format"
    assert "AVIF (this Pillow is built without it), which is not supported" in found.message


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + b"\0" * 40, "HEIC"),
        (b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic" + b"\0" * 40, "HEIC"),
        (b"\0\0\0\x18ftypisom\0\0\0\0isomavc1" + b"\0" * 40, "ISO media"),
        (b"\0\0\0\x0cJXL \r\n\x87\n" + b"\0" * 40, "JPEG XL"),
        (b"\xff\x0a" + b"\0" * 40, "JPEG XL"),
        (b"8BPS\0\1" + b"\0" * 40, "Photoshop"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "SVG"),
        (b"%PDF-1.7", "PDF"),
    ],
)
def test_foreign_formats_are_named_whatever_the_suffix(data: bytes, kind: str) -> None:
    found = problem(data)
    assert found.rule == "unknown-format"
    assert f"format {kind}" in found.message
    assert found.remedy.startswith("convert it")


@pytest.mark.parametrize("chunk", [b"zTXt", b"iTXt"])
def test_texts_that_are_too_large_are_not_called_damage(chunk: bytes) -> None:
    stream = io.BytesIO()
    Image.new("RGB", (16, 16)).save(stream, "PNG")
    plain = stream.getvalue()
    packed = zlib.compress(b"x" * (2 << 20))
    content = b"workflow\0" + (b"\0" if chunk == b"zTXt" else b"\1\0\0\0") + packed
    text = struct.pack(">I", len(content)) + chunk + content + struct.pack(">I", zlib.crc32(chunk + content))
    found = problem(plain[:33] + text + plain[33:])
    assert found.rule == "too-much-text"
    assert "remove them" in found.remedy


def test_foreign_files_in_folders_are_named_and_sources_pass(tmp_path: Path) -> None:
    touch(tmp_path, "a.png", "a.psd", "b.heic", "c.JXL", "d.avif")
    for name in "abd":
        (tmp_path / f"{name}.txt").write_text(name)
    found = find(tmp_path)
    assert captions(found) == {"a": "a", "d": "d"}, "a.psd is what a.png was made from"
    assert listed(found) == {"b": "unknown-format", "c": "unknown-format"}
    assert "images of type .heic (HEIC) are not supported" in found.problems[0].message


def test_foreign_files_that_metadata_names_are_there_and_not_supported(tmp_path: Path) -> None:
    entries = [{"file_name": name, "caption": name} for name in ("a.png", "b.heic", "c.npy", "gone.heic")]
    found = find(imagefolder(tmp_path, *entries, images=("a.png", "b.heic", "c.npy", "d.jxl")))
    assert captions(found) == {"a": "a.png"}
    rules = {"b": "unknown-format", "c": "unknown-format", "gone": "image-missing", "d": "unknown-format"}
    assert listed(found) == rules


def test_foreign_members_of_tars_are_named(tmp_path: Path) -> None:
    write_tar(tmp_path / "0.tar", {"a.heic": b"x", "a.txt": b"a", "b.avif": b"x", "b.caption": b"b"})
    found = find(tmp_path)
    assert captions(found) == {"0/b": "b"}
    assert listed(found) == {"0/a": "unknown-format"}
