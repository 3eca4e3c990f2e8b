"""Image formats by suffix and by first bytes: those that are read, and those that are known and not supported."""

from __future__ import annotations

import posixpath
from pathlib import Path

from data_pipelines.errors import DataError, broken_rule
from data_pipelines.files.reading import unreadable

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".gif", ".tif", ".tiff", ".bmp", ".avif")
"""Suffixes of images that are read."""
FOREIGN_SUFFIXES = {
    **dict.fromkeys((".heic", ".heif", ".hif"), "HEIC"),
    ".jxl": "JPEG XL",
    **dict.fromkeys((".jp2", ".j2k", ".jpx", ".jpf"), "JPEG 2000"),
    **dict.fromkeys((".svg", ".svgz"), "SVG"),
    **dict.fromkeys((".psd", ".psb"), "Photoshop"),
    **dict.fromkeys((".dng", ".cr2", ".cr3", ".nef", ".arw", ".raf", ".orf", ".rw2"), "camera raw"),
    **dict.fromkeys((".exr", ".hdr"), "high dynamic range"),
    **dict.fromkeys((".tga", ".ico", ".ppm", ".pgm", ".pbm", ".pnm", ".dds", ".qoi", ".xcf", ".eps"), "other"),
}
"""Suffix of images that are not read to the name of their format."""
CONVERT = "convert it to PNG or JPEG, or leave the image out"

_HEIC_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx")
_FOREIGN_MAGIC = {
    b"\xff\x0a": "JPEG XL",
    b"\0\0\0\x0cJXL ": "JPEG XL",
    b"\0\0\0\x0cjP  ": "JPEG 2000",
    b"\xff\x4f\xff\x51": "JPEG 2000",
    b"8BPS": "Photoshop",
    b"<svg": "SVG",
    b"<?xml": "SVG",
    b"%PDF": "PDF",
    b"v/1\x01": "OpenEXR",
    b"qoif": "QOI",
    b"\0\0\1\0": "icon",
}
"""First bytes of a file to the name of its format."""


def is_image(name: str) -> bool:
    """Tell whether the name is that of an image that is read."""
    return name.lower().endswith(IMAGE_SUFFIXES)


def foreign_format(name: str) -> str:
    """Return the format of an image that is not supported, by its name; empty for any other file."""
    return FOREIGN_SUFFIXES.get(posixpath.splitext(name)[1].lower(), "")


def not_supported(path: str, name: str, example_id: str) -> DataError:
    """Build the error of an image file whose suffix is that of an unsupported format."""
    suffix = posixpath.splitext(name)[1].lower()
    known = ", ".join(IMAGE_SUFFIXES)
    kind = FOREIGN_SUFFIXES[suffix]
    message = f"images of type {suffix}{'' if kind == 'other' else f' ({kind})'} are not supported; supported: {known}"
    return broken_rule("unknown-format", path, message, CONVERT, example_id)


def check_supported(data: bytes, path: Path) -> None:
    """Raise DataError where the first bytes are those of a known format that is not supported."""
    kind = _foreign_kind(data)
    if kind:
        message = f"is a file of format {kind}, which is not supported, whatever its name says"
        raise unreadable("unknown-format", path, message, CONVERT)


def _foreign_kind(data: bytes) -> str:
    brands = data[8 : int.from_bytes(data[:4], "big")][:64] if data[4:8] == b"ftyp" else b""
    if brands and (brands[:4] in _HEIC_BRANDS or (b"avif" not in brands and b"avis" not in brands)):
        return "HEIC" if any(brand in brands for brand in _HEIC_BRANDS) else "ISO media (such as MP4)"
    if brands and not _reads_avif():
        return "AVIF (this Pillow is built without it)"
    return next((kind for magic, kind in _FOREIGN_MAGIC.items() if data.startswith(magic)), "")


def _reads_avif() -> bool:
    from PIL import features

    return bool(features.check("avif"))
