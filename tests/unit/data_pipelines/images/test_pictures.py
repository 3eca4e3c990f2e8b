"""Pictures: every format, mode and orientation becomes the same square; every fault is named."""

from __future__ import annotations

import hashlib
import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from data_pipelines.errors import DataError, Problem
from data_pipelines.images.buckets import cut_size
from data_pipelines.images.captions import caption_reason
from data_pipelines.images.pictures import LeftOut, Picture, read_image_file, read_picture, read_transparency
from data_pipelines.images.specs import CaptionedSpec, ImageSpec

SPEC = CaptionedSpec(resolution=16, background=(255, 0, 0))
R = SPEC.resolution


def noise(height: int, width: int, *channels: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, *channels), dtype=np.uint8)


def smooth(height: int, width: int) -> np.ndarray:
    """(height, width, 3): red grows to the right, green downwards; survives JPEG and resizing."""
    y, x = np.mgrid[:height, :width]
    return (
        np.stack([255 * x / (width - 1), 255 * y / (height - 1), np.full_like(x, 128.0)], -1).round().astype(np.uint8)
    )


def encoded(image: np.ndarray | Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    (Image.fromarray(image) if isinstance(image, np.ndarray) else image).save(buffer, kind, **options)
    return buffer.getvalue()


def read(data: bytes, spec: CaptionedSpec = SPEC) -> Picture:
    found = read_picture(data, "x/a.bin", spec)
    assert isinstance(found, Picture)
    width, height = cut_size(found.width, found.height, spec)
    assert found.pixels.shape == (height, width, 3)
    assert found.pixels.dtype == np.uint8
    assert found.pixel_sha256 == hashlib.sha256(found.pixels.tobytes()).hexdigest()
    with Image.open(io.BytesIO(found.encoded)) as again:  # what is stored is what was hashed
        assert {"jpg": "JPEG", "png": "PNG", "webp": "WEBP"}[found.extension] == again.format
        assert again.mode == "RGB"
        np.testing.assert_array_equal(np.asarray(again), found.pixels)
    return found


def problem(data: bytes, spec: CaptionedSpec = SPEC) -> Problem:
    with pytest.raises(DataError) as raised:
        read_picture(data, "x/a.bin", spec)
    (found,) = raised.value.problems
    assert found.path == "x/a.bin"
    assert found.remedy
    return found


def turned(image: np.ndarray, orientation: int, kind: str, **options: Any) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encoded(image, kind, exif=exif, **options)


# --- what is kept ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "extension"), [("PNG", "png"), ("JPEG", "jpg"), ("WEBP", "webp")])
def test_images_of_the_right_size_keep_their_bytes(kind: str, extension: str) -> None:
    data = encoded(smooth(R, R), kind)
    found = read(data)
    assert found.encoded == data
    assert (found.extension, found.width, found.height) == (extension, R, R)


@pytest.mark.parametrize(
    "data",
    [
        encoded(smooth(R, R), "BMP"),
        encoded(smooth(R, R), "TIFF"),
        encoded(smooth(R, R)[..., 0], "JPEG"),  # grey
        encoded(np.dstack([smooth(R, R), np.full((R, R), 255, np.uint8)])),  # opaque, but with an alpha channel
        encoded(smooth(R, R), transparency=(0, 0, 128)),
        encoded(Image.fromarray(smooth(R, R)), save_all=True, append_images=[Image.fromarray(noise(R, R, 3))]),
        turned(smooth(R, R), 3, "JPEG"),
        encoded(smooth(R, R + 1)),
    ],
    ids=["bmp", "tiff", "grey", "alpha", "transparency", "animated", "upside down", "wider"],
)
def test_all_others_become_png(data: bytes) -> None:
    found = read(data)
    assert found.extension == "png"
    assert found.encoded != data


def test_16_bit_colour_is_not_kept() -> None:
    rows = b"".join(b"\0" + (smooth(R, R)[y].astype(">u2") * 257).tobytes() for y in range(R))

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", R, R, 16, 2, 0, 0, 0))
    data = b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    found = read(data)
    np.testing.assert_array_equal(found.pixels, smooth(R, R))
    assert found.encoded[24:26] == b"\x08\x02"


def test_metadata_of_the_source_does_not_get_into_png() -> None:
    exif = Image.Exif()
    exif[0x010E] = "where it was taken"
    data = encoded(smooth(2 * R, 2 * R), "JPEG", exif=exif, icc_profile=b"profile" * 20, comment=b"a comment")
    assert set(Image.open(io.BytesIO(read(data).encoded)).info) == set()


# --- buckets ---------------------------------------------------------------------------------------------------------

BUCKETS = CaptionedSpec(resolution=32, crop="buckets", bucket_multiple=8)  # 32x32, 40x24, 64x16 and upright


def test_an_image_of_the_size_of_a_bucket_keeps_its_bytes() -> None:
    data = encoded(noise(24, 40, 3))
    assert read(data, BUCKETS).encoded == data
    assert read(data).encoded != data


def test_what_sticks_out_of_the_bucket_is_cut_evenly() -> None:
    pixels = noise(24, 43, 3)
    np.testing.assert_array_equal(read(encoded(pixels), BUCKETS).pixels, pixels[:, 1:41])
    upright = noise(45, 24, 3)
    np.testing.assert_array_equal(read(encoded(upright), BUCKETS).pixels, upright[2:42])


@pytest.mark.parametrize(("height", "width", "box"), [(48, 90, (5, 0, 85, 48)), (83, 48, (0, 1, 48, 81))])
def test_larger_images_are_cut_then_shrunk(height: int, width: int, box: tuple[int, int, int, int]) -> None:
    image = Image.fromarray(smooth(height, width))
    size = (40, 24) if width > height else (24, 40)
    expected = image.crop(box).resize(size, Image.Resampling.BICUBIC)
    difference = read(encoded(image), BUCKETS).pixels.astype(int) - np.asarray(expected).astype(int)
    assert np.abs(difference).max() <= 1  # at the edges the kernel may look beyond the box


def test_the_bucket_is_that_of_the_upright_image() -> None:
    lying = smooth(240, 400)
    found = read(turned(lying, 6, "JPEG", quality=95), BUCKETS)  # shown turned by 90 degrees
    assert (found.width, found.height) == (240, 400)
    expected = Image.fromarray(np.rot90(lying, -1)).resize((24, 40), Image.Resampling.BOX)
    difference = np.abs(found.pixels.astype(int) - np.asarray(expected).astype(int))[2:-2, 2:-2]
    assert difference.max() <= 8


# --- formats and modes -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF", "BMP", "GIF"])
@pytest.mark.parametrize(("height", "width"), [(64, 64), (48, 96), (97, 40), (R, 33)])
def test_formats(kind: str, height: int, width: int) -> None:
    found = read(encoded(smooth(height, width), kind, **({"quality": 95} if kind in ("JPEG", "WEBP") else {})))
    assert (found.height, found.width) == (height, width)
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    box = (left, top, left + side, top + side)
    expected = Image.fromarray(smooth(height, width)).crop(box).resize((R, R), Image.Resampling.BOX)
    difference = np.abs(found.pixels.astype(int) - np.asarray(expected).astype(int))[2:-2, 2:-2]
    assert difference.max() <= (24 if kind == "GIF" else 8)  # GIF has 256 colours


def test_what_fits_is_cropped_without_resampling() -> None:
    image = noise(R, R + 7, 3)
    np.testing.assert_array_equal(read(encoded(image)).pixels, image[:, 3 : 3 + R])
    image = noise(R + 4, R, 3)
    np.testing.assert_array_equal(read(encoded(image)).pixels, image[2 : 2 + R])


def test_shrinking_is_antialiased() -> None:
    stripes = np.zeros((160, 160, 3), np.uint8)
    stripes[:, ::2] = 255
    assert np.abs(read(encoded(stripes)).pixels[:, 1:-1].astype(int) - 127.5).max() <= 2.5


def test_small_images_are_enlarged() -> None:
    assert np.ptp(read(encoded(np.full((5, 9, 3), 77, np.uint8))).pixels) == 0


def test_grey_palette_and_one_bit() -> None:
    grey = noise(R, R)
    np.testing.assert_array_equal(read(encoded(grey)).pixels, np.repeat(grey[..., None], 3, -1))
    bits = Image.fromarray((grey > 127).astype(np.uint8) * 255).convert("1")
    np.testing.assert_array_equal(read(encoded(bits)).pixels[..., 1], (grey > 127) * 255)
    palette = Image.fromarray(smooth(R, R)).quantize(16)
    np.testing.assert_array_equal(read(encoded(palette)).pixels, np.asarray(palette.convert("RGB")))


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_16_bit_grey_is_scaled(kind: str) -> None:
    grey = np.linspace(0, 65535, R * R).round().astype(np.uint16).reshape(R, R)
    found = read(encoded(Image.fromarray(grey), kind)).pixels[..., 0]
    np.testing.assert_array_equal(found, np.round(grey / 257).astype(np.uint8))


def test_cmyk() -> None:
    image = Image.new("CMYK", (R, R), (0, 255, 255, 0))  # no cyan, all of magenta and yellow
    for kind in ("JPEG", "TIFF"):
        assert np.abs(read(encoded(image, kind)).pixels.astype(int) - [255, 0, 0]).max() <= 2


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_transparency_shows_the_background(kind: str) -> None:
    rgba = np.full((R, R, 4), (0, 0, 200, 255), np.uint8)
    rgba[: R // 2, :, 3] = 0
    rgba[0, 0, 3] = 51
    found = read(encoded(rgba, kind, **({"lossless": True, "exact": True} if kind == "WEBP" else {}))).pixels
    assert found[1, 1].tolist() == [255, 0, 0]
    assert found[-1, 0].tolist() == [0, 0, 200]
    assert found[0, 0].tolist() == [204, 0, 40]


def test_other_kinds_of_transparency() -> None:
    la = np.dstack([np.full((R, R), 100, np.uint8), np.zeros((R, R), np.uint8)])
    assert read(encoded(Image.fromarray(la, "LA"))).pixels[0, 0].tolist() == [255, 0, 0]
    palette = Image.new("P", (R, R), 1)
    palette.putpalette([0, 0, 0, 10, 20, 30])
    assert read(encoded(palette, transparency=1)).pixels[0, 0].tolist() == [255, 0, 0]
    assert read(encoded(palette, transparency=0)).pixels[0, 0].tolist() == [10, 20, 30]
    assert read(encoded(palette, "GIF", transparency=1)).pixels[0, 0].tolist() == [255, 0, 0]
    colour = np.full((R, R, 3), 9, np.uint8)
    assert read(encoded(colour, transparency=(9, 9, 9))).pixels[0, 0].tolist() == [255, 0, 0]


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF"])
def test_first_frame(kind: str) -> None:
    first, second = (Image.new("RGB", (R, R), colour) for colour in ((255, 255, 255), (0, 0, 0)))
    found = read(encoded(first, kind, save_all=True, append_images=[second]))
    assert (found.pixels > 250).all()
    assert found.extension == "png"


def test_phone_pictures_of_several_frames() -> None:
    first, second = (Image.fromarray(smooth(R, R)[:, ::step]) for step in (1, -1))
    found = read(encoded(first, "MPO", save_all=True, append_images=[second], quality=95))
    assert np.abs(found.pixels.astype(int) - smooth(R, R)).max() < 24
    assert found.extension == "png"


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation(kind: str, orientation: int) -> None:
    image = smooth(64, 96)
    # Row 0 and column 0 of what is stored are these sides of the upright image (EXIF 2.3, table 6).
    stored = {
        1: image,  # top, left
        2: image[:, ::-1],  # top, right
        3: image[::-1, ::-1],  # bottom, right
        4: image[::-1],  # bottom, left
        5: image.transpose(1, 0, 2),  # left, top
        6: image.transpose(1, 0, 2)[::-1],  # right, top
        7: image.transpose(1, 0, 2)[::-1, ::-1],  # right, bottom
        8: image.transpose(1, 0, 2)[:, ::-1],  # left, bottom
    }[orientation]
    stored = np.ascontiguousarray(stored)
    found = read(turned(stored, orientation, kind, **({} if kind in ("PNG", "TIFF") else {"quality": 95})))
    assert (found.height, found.width) == (64, 96)
    upright = read(encoded(image)).pixels
    assert np.abs(found.pixels.astype(int) - upright).max() <= 8


def test_a_damaged_exif_block_says_nothing() -> None:
    data = encoded(smooth(R, R), "JPEG", exif=b"Exif\0\0nonsense, not TIFF")
    assert read(data).encoded == data


# --- faults ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "TIFF", "BMP"])
def test_cut_short(kind: str) -> None:
    data = encoded(noise(64, 64, 3), kind)
    found = problem(data[: len(data) * 2 // 3])
    assert found.rule == "truncated-file"
    assert str(len(data) * 2 // 3) in found.message


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "TIFF", "BMP"])
def test_no_cut_gets_through_or_escapes(kind: str) -> None:
    data = encoded(noise(R, R, 3), kind)
    for length in range(0, len(data) - 64, 37):
        assert problem(data[:length]).rule in ("empty-file", "truncated-file", "unknown-format", "unreadable")


def test_damaged_bytes() -> None:
    data = bytearray(encoded(noise(64, 64, 3)))
    data[len(data) // 2] ^= 0xFF
    assert problem(bytes(data)).rule in ("unreadable", "truncated-file")


def test_no_image() -> None:
    assert problem(b"").rule == "empty-file"
    assert problem(b"<html>404</html>").rule == "unknown-format"
    assert "b'<html>40'" in problem(b"<html>404</html>").message
    assert problem(encoded(smooth(R, R), "ICO")).rule == "unknown-format"  # Pillow knows it, the allow-list does not


def test_too_many_pixels_are_refused_by_the_header(monkeypatch: pytest.MonkeyPatch) -> None:
    small = SPEC.model_copy(update={"max_pixels": 64 * 64 - 1})
    data = encoded(smooth(64, 64))
    found = problem(data, small)
    assert found.rule == "too-large"
    assert "64x64 = 4096 pixels, more than the limit of 4095" in found.message
    assert "data.max_pixels" in found.remedy
    assert problem(data[:60], small).rule == "too-large"  # before anything is decoded
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 64 * 64 - 1)  # above it Pillow only warns
    assert problem(data).rule == "too-large"


@pytest.mark.parametrize("mode", ["F", "I"])
def test_unsupported_modes_are_named(mode: str) -> None:
    found = problem(encoded(Image.new(mode, (R, R)), "TIFF"))
    assert found.rule == "unsupported-mode"
    assert f"mode {mode} " in found.message
    lab = problem(encoded(Image.new("LAB", (R, R)), "TIFF"))
    assert (lab.rule, "LAB" in lab.message) == ("unsupported-mode", True)


# --- filters ---------------------------------------------------------------------------------------------------------


def test_sizes_left_out() -> None:
    spec = SPEC.model_copy(update={"min_side": 20, "max_aspect_ratio": 2.0})
    for height, width, reason in [(19, 30, "min_side"), (20, 41, "max_aspect_ratio"), (41, 20, "max_aspect_ratio")]:
        data = encoded(smooth(height, width))
        assert read_picture(data, "a", spec) == LeftOut(reason, width, height)
        assert read_picture(data[:60], "a", spec) == LeftOut(reason, width, height)  # nothing is decoded
    assert read(encoded(smooth(20, 40)), spec).width == 40


def test_captions_left_out() -> None:
    spec = SPEC.model_copy(update={"min_caption_chars": 3, "max_caption_chars": 4})
    reasons = [caption_reason(caption, spec) for caption in ("aß", "aßc", "aßcd", "aßcde")]
    assert reasons == ["min_caption_chars", None, None, "max_caption_chars"]


def test_opacity_of_an_upright_picture(tmp_path: Path) -> None:
    opaque, alpha = noise(5, 7, 3), noise(5, 7)
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn
    data = encoded(np.dstack([opaque, alpha]), exif=exif)
    found = read_transparency(data, "a.png", ImageSpec())
    assert found is not None
    np.testing.assert_array_equal(found, np.rot90(alpha, -1))
    assert read_transparency(encoded(opaque), "a.png", ImageSpec()) is None
    palette = Image.fromarray(noise(4, 4) % 2).convert("P")
    palette.info["transparency"] = 1
    found = read_transparency(encoded(palette, transparency=1), "a.png", ImageSpec())
    assert found is not None
    assert set(found.flatten().tolist()) == {0, 255}


def png_with_key(values: list[int], depth: int, kind: int, key: bytes) -> bytes:
    """One row of PNG samples of ``depth`` bits, of which the colour ``key`` is transparent."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    bits = "".join(f"{value:0{depth}b}" for value in values)
    row = b"\0" + int(bits, 2).to_bytes(len(bits) // 8, "big")
    header = struct.pack(">IIBBBBB", len(values) // (3 if kind == 2 else 1), 1, depth, kind, 0, 0, 0)
    chunks = chunk(b"IHDR", header), chunk(b"tRNS", key), chunk(b"IDAT", zlib.compress(row)), chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


@pytest.mark.parametrize(
    ("data", "opacity", "red"),
    [
        (png_with_key([30_000, 20_000], 16, 0, struct.pack(">H", 20_000)), [255, 0], [117, 78]),
        (png_with_key([300, 9, 9, 30_000, 9, 9], 16, 2, struct.pack(">3H", 30_000, 9, 9)), [255, 0], [1, 117]),
        (png_with_key([0, 3, 1, 2], 2, 0, struct.pack(">H", 1)), [255, 255, 0, 255], [0, 255, 85, 170]),
        (png_with_key([15, 7], 4, 0, struct.pack(">H", 15)), [0, 255], [255, 119]),
    ],
    ids=["16-bit grey", "16-bit colour", "2-bit grey", "4-bit grey"],
)
def test_holes_of_one_transparent_colour(data: bytes, opacity: list[int], red: list[int]) -> None:
    """tRNS is in the depth of the file; below the holes the image keeps its own colours."""
    found = read_transparency(data, "a.png", ImageSpec())
    assert found is not None
    assert found.tolist() == [opacity]
    picture = read_picture(data, "a.png", ImageSpec(), ignores_opacity=True)
    assert isinstance(picture, Picture)
    assert picture.pixels[0, :, 0].tolist() == red


def test_a_file_larger_than_any_image_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(bytes((1 << 20) + 8 * 4 + 1))
    with pytest.raises(DataError, match=r"too-large"):
        read_image_file(str(tmp_path / "a.png"), ImageSpec(max_pixels=4))
    assert len(read_image_file(str(tmp_path / "a.png"), ImageSpec(max_pixels=5))) == (1 << 20) + 33
