"""Colours of any mode, depth and profile: sRGB as littleCMS computes it, and every conversion named."""

from __future__ import annotations

import io
import itertools
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from data_pipelines.images.boxes import avif_colour_space, avif_depth
from data_pipelines.images.changes import (
    ADOBE_RGB,
    BAD_PROFILE,
    CHANGES,
    CMYK,
    COLOUR_TAG,
    DEEP,
    FIRST_FRAME,
    GAMMA,
    PROFILE,
    TRANSPARENT,
)
from data_pipelines.images.pictures import Picture, read_picture
from data_pipelines.images.specs import CaptionedSpec, ImageSpec

SPEC = CaptionedSpec(resolution=8, background=(255, 0, 0))
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
SIDE = 8
GREEN = (40, 200, 60)


def fixed(value: float) -> bytes:
    """A number as profiles store it: s15Fixed16."""
    return struct.pack(">i", round(value * 65536))


def profile_file(kind: bytes, space: bytes, pcs: bytes, tags: dict[bytes, bytes]) -> bytes:
    """A profile (ICC.1:2001-04) of these tags."""
    start, table, body = 132 + 12 * len(tags), b"", b""
    for tag, data in tags.items():
        table += tag + struct.pack(">II", start + len(body), len(data))
        body += data + b"\0" * (-len(data) % 4)
    size = struct.pack(">I", start + len(body))
    head = size + b"test\x02\x40\0\0" + kind + space + pcs + struct.pack(">6H", 2024, 1, 1, 0, 0, 0) + b"acsp"
    head = head.ljust(68, b"\0") + b"".join(map(fixed, (0.9642, 1.0, 0.8249)))
    return head.ljust(128, b"\0") + struct.pack(">I", len(tags)) + table + body


NAME = b"desc\0\0\0\0" + struct.pack(">I", 5) + b"test\0" + b"\0" * 79


def ink_profile() -> bytes:
    """A CMYK profile of an imaginary press, whose inks are pale: a table of two points per ink (lut8)."""
    nodes = b""
    for cyan, magenta, yellow, black in itertools.product((0, 1), repeat=4):
        lightness = 250 - 40 * cyan - 40 * magenta - 10 * yellow - 100 * black
        nodes += bytes([lightness, 128 - 40 * cyan + 60 * magenta, 128 - 40 * cyan + 60 * yellow])
    identity = b"".join(map(fixed, (1, 0, 0, 0, 1, 0, 0, 0, 1)))
    table = b"mft1\0\0\0\0" + bytes([4, 3, 2, 0]) + identity + bytes(range(256)) * 4 + nodes + bytes(range(256)) * 3
    return profile_file(b"prtr", b"CMYK", b"Lab ", {b"desc": NAME, b"A2B0": table})


def gamma_profile(space: bytes, gamma: float, primaries: dict[bytes, tuple[float, float, float]]) -> bytes:
    """A matrix or grey profile (ICC.1:2001-04): one gamma, primaries adapted to D50."""

    def xyz(values: tuple[float, float, float]) -> bytes:
        return b"XYZ \0\0\0\0" + b"".join(map(fixed, values))

    curve = b"curv\0\0\0\0" + struct.pack(">IH", 1, round(gamma * 256)) + b"\0\0"
    curves = {f"{channel}TRC".encode(): curve for channel in ("rgb" if primaries else "k")}
    white = xyz((0.9642, 1.0, 0.8249))
    tags = {b"desc": NAME, b"wtpt": white, **{tag: xyz(value) for tag, value in primaries.items()}, **curves}
    return profile_file(b"mntr", space, b"XYZ ", tags)


ADOBE = {b"rXYZ": (0.60974, 0.31111, 0.01947), b"gXYZ": (0.20528, 0.62567, 0.06087), b"bXYZ": (0.14919, 0.06322, 0.744)}
WIDE = gamma_profile(b"RGB ", 2.2, ADOBE)
GREY = gamma_profile(b"GRAY", 1.0, {})
INK = ink_profile()


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def read(data: bytes) -> Picture:
    found = read_picture(data, "a", SPEC)
    assert isinstance(found, Picture)
    assert set(found.changes) <= CHANGES.keys()
    with Image.open(io.BytesIO(found.encoded)) as again:
        profile = again.info.get("icc_profile")
        assert profile in (None, SRGB), "no file is kept with another profile"
        np.testing.assert_array_equal(np.asarray(again.convert("RGB")), found.pixels)
    return found


def by_littlecms(image: Image.Image, profile: bytes) -> np.ndarray:
    converted = ImageCms.profileToProfile(
        image, ImageCms.ImageCmsProfile(io.BytesIO(profile)), ImageCms.createProfile("sRGB"), outputMode="RGB"
    )
    assert converted is not None
    return np.asarray(converted)


def gradient(mode: str = "RGB") -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), np.uint8)
    return Image.fromarray(pixels).convert(mode)


# --- profiles --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP"])
def test_a_wide_profile_becomes_srgb(kind: str) -> None:
    data = encoded(gradient(), kind, icc_profile=WIDE, **({"lossless": True} if kind == "WEBP" else {}))
    found = read(data)
    np.testing.assert_array_equal(found.pixels, by_littlecms(gradient(), WIDE))
    assert found.changes == (PROFILE,)
    assert found.encoded != data
    plain = Image.new("RGB", (SIDE, SIDE), GREEN)
    expected = read(encoded(plain, kind, icc_profile=WIDE, **({"lossless": True} if kind == "WEBP" else {})))
    assert np.abs(expected.pixels[0, 0].astype(int) - GREEN).max() > 20, "AdobeRGB green is far from sRGB's"


def test_jpegs_of_the_right_size_are_not_kept_with_another_profile() -> None:
    flat = Image.new("RGB", (SIDE, SIDE), GREEN)
    kept, converted = (read(encoded(flat, "JPEG", quality=100, icc_profile=profile)) for profile in (SRGB, WIDE))
    assert (kept.extension, kept.changes) == ("jpg", ())
    assert (converted.extension, converted.changes) == ("png", (PROFILE,))


def test_larger_images_turned_images_and_palettes_are_converted_too() -> None:
    expected = by_littlecms(Image.new("RGB", (1, 1), GREEN), WIDE)[0, 0]
    large = Image.new("RGB", (64, 48), GREEN)
    exif = Image.Exif()
    exif[0x0112] = 6
    for data in (
        encoded(large, icc_profile=WIDE),
        encoded(large, icc_profile=WIDE, exif=exif),
        encoded(large.quantize(2), icc_profile=WIDE),
        encoded(large.convert("RGBA"), icc_profile=WIDE),
    ):
        found = read(data)
        assert np.abs(found.pixels.astype(int) - expected).max() <= 1
        assert found.changes == (PROFILE,)


def test_profiles_that_are_srgbs_change_nothing() -> None:
    for image in (gradient(), gradient("L")):
        found = read(encoded(image, icc_profile=SRGB))
        np.testing.assert_array_equal(found.pixels, np.asarray(image.convert("RGB")))
        assert found.changes == ()


def test_grey_profiles() -> None:
    grey = gradient("L")
    found = read(encoded(grey, icc_profile=GREY))
    np.testing.assert_array_equal(found.pixels, by_littlecms(grey, GREY))
    assert found.changes == (PROFILE,)
    assert found.pixels.mean() > np.asarray(grey).mean() + 20, "linear grey is lighter in sRGB"
    np.testing.assert_array_equal(read(encoded(grey, icc_profile=WIDE)).pixels, by_littlecms(grey.convert("RGB"), WIDE))


@pytest.mark.parametrize("profile", [b"profile" * 20, WIDE[:200], GREY], ids=["noise", "cut", "grey for RGB"])
def test_profiles_that_cannot_be_used_are_counted(profile: bytes) -> None:
    found = read(encoded(gradient(), icc_profile=profile))
    np.testing.assert_array_equal(found.pixels, np.asarray(gradient()))
    assert found.changes == (BAD_PROFILE,)


def test_cmyk_is_converted_by_its_profile() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 4), np.uint8)
    image = Image.frombytes("CMYK", (SIDE, SIDE), pixels.tobytes())
    found = read(encoded(image, "TIFF", icc_profile=INK))
    np.testing.assert_array_equal(found.pixels, by_littlecms(image, INK))
    assert found.changes == (PROFILE,)
    plain = np.asarray(image.convert("RGB")).astype(int)
    assert np.abs(found.pixels - plain).mean() > 20, "the plain formula knows nothing of inks"
    flat = Image.new("CMYK", (SIDE, SIDE), (0, 200, 0, 0))
    jpeg = read(encoded(flat, "JPEG", quality=100, icc_profile=INK))
    assert np.abs(jpeg.pixels.astype(int) - by_littlecms(flat, INK)).max() <= 2
    assert jpeg.changes == (PROFILE,)


def test_cmyk_without_a_profile_is_counted() -> None:
    for kind in ("JPEG", "TIFF"):
        assert read(encoded(Image.new("CMYK", (SIDE, SIDE), (0, 255, 255, 0)), kind)).changes == (CMYK,)
    wrong = read(encoded(Image.new("CMYK", (SIDE, SIDE), (0, 255, 255, 0)), "TIFF", icc_profile=WIDE))
    assert wrong.changes == (BAD_PROFILE,)


def test_tags_that_are_not_followed_are_counted() -> None:
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0xA001] = 2
    assert read(encoded(gradient(), "JPEG", exif=exif)).changes == (ADOBE_RGB,)
    for gamma, changes in ((1.0, (GAMMA,)), (1 / 2.2, ())):
        assert read(with_chunk(b"gAMA", struct.pack(">I", round(gamma * 100_000)))).changes == changes


def with_chunk(name: bytes, content: bytes) -> bytes:
    """A PNG with one more chunk before its pixels."""
    plain = encoded(gradient())
    place = plain.index(b"IDAT") - 4
    chunk = struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
    return plain[:place] + chunk + plain[place:]


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
@pytest.mark.parametrize(
    ("space", "interop", "changes"),
    [(2, None, (ADOBE_RGB,)), (0xFFFF, "R03", (ADOBE_RGB,)), (0xFFFF, "R98", ()), (0xFFFF, None, ()), (1, "R03", ())],
)
def test_adobe_rgb_as_cameras_tag_it(kind: str, space: int, interop: str | None, changes: tuple[str, ...]) -> None:
    """In any format that has EXIF; cameras write "uncalibrated" and name Adobe RGB's option file (DCF)."""
    tags: dict[int, Any] = {0xA001: space} | ({} if interop is None else {0xA005: {1: interop}})
    exif, directory = Image.Exif(), ImageFileDirectory_v2()
    exif[0x0131] = "a camera"  # Pillow takes an EXIF block without tags of its own for empty
    exif.get_ifd(0x8769).update(tags)
    directory[0x8769] = tags
    options = {"tiffinfo": directory} if kind == "TIFF" else {"exif": exif}
    assert read(encoded(gradient(), kind, **options)).changes == changes


def with_nclx(primaries: int, transfer: int) -> bytes:
    data = bytearray(encoded(gradient(), "AVIF"))
    place = data.index(b"nclx") + 4
    data[place : place + 4] = struct.pack(">HH", primaries, transfer)
    return bytes(data)


@pytest.mark.parametrize(
    ("primaries", "transfer", "changes"),
    [
        (1, 13, ()),
        (2, 2, ()),
        (1, 1, ()),
        (12, 13, (COLOUR_TAG,)),  # Display P3
        (9, 16, (COLOUR_TAG,)),  # BT.2020, PQ
        (9, 18, (COLOUR_TAG,)),  # BT.2020, HLG
        (1, 8, (COLOUR_TAG,)),  # linear
    ],
)
def test_colour_spaces_without_a_profile_are_counted(primaries: int, transfer: int, changes: tuple[str, ...]) -> None:
    avif = with_nclx(primaries, transfer)
    assert avif_colour_space(avif) == (primaries, transfer)
    assert read(avif).changes == changes
    assert read(with_chunk(b"cICP", bytes([primaries, transfer, 0, 1]))).changes == changes


def test_depth_of_an_avif_is_that_of_its_codec() -> None:
    data = bytearray(encoded(gradient(), "AVIF"))
    bits = data.index(b"av1C") + 6
    assert (avif_depth(bytes(data)), data[bits] & 0x60) == (8, 0)
    for flags, depth in ((0x40, 10), (0x60, 12), (0x20, 8)):
        data[bits] = data[bits] & ~0x60 | flags
        assert avif_depth(bytes(data)) == depth
    for length in range(0, len(data), 7):
        cut = bytes(data[:length])
        assert (avif_depth(cut), avif_colour_space(cut)) in ((8, None), (8, (1, 13)))


# --- depth and transparency ------------------------------------------------------------------------------------------


def png(rows: bytes, depth: int, kind: int, transparent: bytes = b"") -> bytes:
    """A PNG of 8x8 pixels from its raw rows."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    step = len(rows) // SIDE
    raw = b"".join(b"\0" + rows[y * step : (y + 1) * step] for y in range(SIDE))
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", SIDE, SIDE, depth, kind, 0, 0, 0))
    key = chunk(b"tRNS", transparent) if transparent else b""
    return b"\x89PNG\r\n\x1a\n" + header + key + chunk(b"IDAT", zlib.compress(raw)) + chunk(b"IEND", b"")


def test_16_bit_grey_with_a_transparent_value() -> None:
    grey = np.full((SIDE, SIDE), 20_000, np.uint16)
    grey[0, :2] = 20_001, 257 * 100
    found = read(png(grey.astype(">u2").tobytes(), 16, 0, struct.pack(">H", 20_000)))
    assert found.pixels[1, 1].tolist() == [255, 0, 0], "the background shows"
    assert found.pixels[0, :2].tolist() == [[78] * 3, [100] * 3], "20001 is another value, and opaque"
    assert found.changes == (DEEP, TRANSPARENT)


def test_16_bit_colour_with_transparency() -> None:
    colour = np.full((SIDE, SIDE, 3), 257 * 9, np.uint16)
    colour[0] = 257 * 90
    found = read(png(colour.astype(">u2").tobytes(), 16, 2, struct.pack(">3H", *[257 * 9] * 3)))
    assert (found.pixels[1, 1].tolist(), found.pixels[0, 0].tolist()) == ([255, 0, 0], [90] * 3)
    assert found.changes == (DEEP, TRANSPARENT)
    alpha = np.full((SIDE, SIDE, 2), 257 * 90, np.uint16)
    alpha[..., 1] = 0
    alpha[0, :, 1] = 65535
    found = read(png(alpha.astype(">u2").tobytes(), 16, 4))
    assert (found.pixels[1, 1].tolist(), found.pixels[0, 0].tolist()) == ([255, 0, 0], [90] * 3)
    assert found.changes == (DEEP, TRANSPARENT)


@pytest.mark.parametrize("depth", [1, 2, 4, 8])
def test_few_bit_grey_with_a_transparent_value(depth: int) -> None:
    largest = 2**depth - 1
    row = int("".join(f"{v:0{depth}b}" for v in [largest, 0] * 4), 2).to_bytes(depth, "big")
    found = read(png(row * SIDE, depth, 0, struct.pack(">H", largest)))
    assert found.pixels[0, :2].tolist() == [[255, 0, 0], [0, 0, 0]]
    assert found.changes == (TRANSPARENT,)


def test_16_bit_tiff_is_counted() -> None:
    assert read(encoded(Image.fromarray(np.full((SIDE, SIDE), 257, np.uint16)), "TIFF")).changes == (DEEP,)


def grey_tiff(values: list[int], depth: int, photometric: int) -> bytes:
    """A TIFF of one row of grey values, packed."""
    bits = "".join(f"{value:0{depth}b}" for value in values)
    pixels = int(bits, 2).to_bytes(len(bits) // 8, "big")
    if depth == 16:
        pixels = struct.pack(f"<{len(values)}H", *values)
    shape = {256: len(values), 257: 1, 258: depth, 259: 1, 262: photometric, 273: 8, 277: 1, 278: 1, 279: len(pixels)}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in shape.items())
    place = struct.pack("<I", 8 + len(pixels))
    return b"II*\0" + place + pixels + struct.pack("<H", len(shape)) + entries + b"\0" * 4


@pytest.mark.parametrize(
    ("depth", "photometric", "expected"),
    [(12, 1, [0, 255, 62, 1]), (16, 1, [0, 16, 4, 0]), (16, 0, [255, 239, 251, 255])],
)
def test_deep_grey_tiff_has_its_own_depth_and_direction(depth: int, photometric: int, expected: list[int]) -> None:
    """12 bits end at 4095; photometric 0 is white at 0."""
    data = grey_tiff([0, 4095, 1000, 16], depth, photometric)
    found = read_picture(data, "a", ImageSpec())
    assert isinstance(found, Picture)
    assert found.pixels[0, :, 0].tolist() == expected
    assert found.changes == (DEEP,)


def test_opaque_alpha_changes_nothing() -> None:
    assert read(encoded(gradient("RGBA"))).changes == ()


def test_transparent_pixels_and_profile() -> None:
    rgba = Image.new("RGBA", (SIDE, SIDE), (*GREEN, 255))
    rgba.putpixel((0, 0), (*GREEN, 0))
    found = read(encoded(rgba, icc_profile=WIDE))
    assert found.pixels[0, 0].tolist() == [255, 0, 0], "the background is sRGB already"
    np.testing.assert_array_equal(found.pixels[1, 1], by_littlecms(Image.new("RGB", (1, 1), GREEN), WIDE)[0, 0])
    assert found.changes == (PROFILE, TRANSPARENT)


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF", "AVIF"])
def test_further_frames_are_counted(kind: str) -> None:
    frames = [Image.new("RGB", (SIDE, SIDE), colour) for colour in ((250, 250, 250), (0, 0, 0))]
    found = read(encoded(frames[0], kind, save_all=True, append_images=frames[1:]))
    assert FIRST_FRAME in found.changes
    assert found.pixels.min() > 240
    assert FIRST_FRAME not in read(encoded(frames[0], kind)).changes
