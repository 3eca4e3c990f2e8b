"""Encoded image bytes to an RGB picture of the wanted size: bounded, upright, opaque, resized and cropped.

Resizing is Pillow's bicubic, which widens its kernel when it shrinks (antialiased), rather than Lanczos: Lanczos
overshoots more at hard edges, which drawings and lettering are made of, and bicubic is what clean-fid resizes real
images with. Before it, large images are shrunk by a whole number (JPEG while it is decoded, others by box averages) to
no less than three times the target; from there on, says Pillow's manual, the result looks the same.

Colours become sRGB (``colours``). A file that Pillow can read but that is kept as it is has sRGB values already.
"""

from __future__ import annotations

import hashlib
import io
import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from data_pipelines.errors import DataError
from data_pipelines.files.pillow import EXIF_ORIENTATION, UPRIGHT, bounded_pixels, is_deep_grey, upright_size
from data_pipelines.files.reading import named_errors, unreadable
from data_pipelines.images.buckets import Size, cut_size
from data_pipelines.images.changes import FIRST_FRAME
from data_pipelines.images.colours import (
    ALPHA_MODES,
    PLAIN_MODES,
    bits_per_channel,
    is_srgb,
    split_alpha,
    to_srgb,
    value_changes,
)
from data_pipelines.images.kinds import check_supported
from data_pipelines.images.specs import ImageSpec

if TYPE_CHECKING:
    from PIL.Image import Image as PillowImage

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP", "AVIF")
EXTENSIONS = {"JPEG": "jpg", "PNG": "png", "WEBP": "webp"}
"""Formats whose encoded bytes may be kept, with the extension of their part in a shard."""
_MAGIC = (b"\xff\xd8\xff", b"\x89PNG", b"RIFF", b"GIF8", b"II*\0", b"MM\0*", b"BM")
REDUCING_GAP = 3.0
"""Multiple of the target size that large images are first shrunk to by a whole number."""
PNG_LEVEL = 1
"""zlib level of re-encoded pictures: at 256 pixels half the time of the default (6), 11 to 16 % more bytes."""

_CONVERT = "convert it to 8-bit RGB, or leave the image out"


OPAQUE = 128
"""Opacity (0..255) below which a pixel is a hole: what inpainting fills."""


@dataclass(frozen=True, slots=True)
class Picture:
    """One image, ready for a shard."""

    pixels: np.ndarray
    """(height, width, 3) uint8, RGB, of the size that the spec asks for."""
    encoded: bytes
    """The file's own bytes where they need no change, else a lossless PNG."""
    extension: str
    """``png``, ``jpg`` or ``webp``."""
    width: int
    """Width of the upright original, in pixels."""
    height: int
    """Height of the upright original, in pixels."""
    pixel_sha256: str
    """SHA-256 of ``pixels``."""
    changes: tuple[str, ...] = ()
    """Names of what was changed beyond size and crop, see ``changes``."""


@dataclass(frozen=True, slots=True)
class LeftOut:
    """An image that a filter of the spec skips; not an error."""

    reason: str
    """Name of the field of the spec that skips it."""
    width: int
    """Width as stored, in pixels."""
    height: int
    """Height as stored, in pixels."""


def max_encoded_bytes(spec: ImageSpec) -> int:
    """Bound the bytes of an image of ``spec.max_pixels``: 16 bits for each of four channels, and 1 MiB for the rest."""
    return 8 * spec.max_pixels + (1 << 20)


def read_image_file(path: str, spec: ImageSpec) -> bytes:
    """Read an encoded image. Raises DataError where it is missing, or larger than any of ``spec.max_pixels``."""
    limit = max_encoded_bytes(spec)
    with named_errors(Path(path)), open(path, "rb") as stream:
        data = stream.read(limit + 1)
    if len(data) > limit:
        raise too_large(Path(path), len(data), limit)
    return data


def too_large(where: Path, num_bytes: int, limit: int) -> DataError:
    """Build the error of a file of more bytes than an image may have."""
    message = f"{num_bytes} bytes or more, above the {limit} of the largest image allowed"
    remedy = "is it an image? Raise data.max_pixels if it is meant to be that large"
    return unreadable("too-large", where, message, remedy)


def size_reason(width: int, height: int, spec: ImageSpec) -> str | None:
    """Return the field of the spec that skips images of this size in pixels, if any."""
    if min(width, height) < spec.min_side:
        return "min_side"
    if spec.max_aspect_ratio is not None and max(width, height) > spec.max_aspect_ratio * min(width, height):
        return "max_aspect_ratio"
    return None


def read_picture(data: bytes, name: str, spec: ImageSpec, *, ignores_opacity: bool = False) -> Picture | LeftOut:
    """Decode the picture in ``data``; LeftOut, before it is decoded, where the spec skips its size.

    Transparent pixels are laid over the background; with ``ignores_opacity`` they have their own colours.

    ``name`` appears in messages. Raises DataError where the bytes are not an image of a known format and mode, are
    truncated or damaged, or declare more than ``spec.max_pixels``.
    """
    with open_image(data, Path(name), spec.max_pixels) as image:
        if reason := size_reason(*image.size, spec):
            return LeftOut(reason, *image.size)
        orientation = _orientation(image)
        width, height = upright_size(image.size, orientation)
        size = cut_size(width, height, spec)
        depth = bits_per_channel(image, data)
        keep = (width, height) == size and _is_plain_rgb(image, depth, orientation)
        extension = EXTENSIONS[str(image.format)] if keep else "png"
        changes = (*_frame_changes(image), *value_changes(image, data))
        upright = _decode(image, orientation, size)
        profile = upright.info.get("icc_profile")
        opaque = to_srgb(upright, spec.background, profile, depth, ignores_opacity=ignores_opacity)
        cut = cut_middle(opaque.image, size)
    pixels = np.asarray(cut)
    encoded = data if keep else _png(cut)
    digest = hashlib.sha256(pixels.tobytes()).hexdigest()
    return Picture(pixels, encoded, extension, width, height, digest, (*changes, *opaque.changes))


def read_transparency(data: bytes, name: str, spec: ImageSpec) -> np.ndarray | None:
    """Decode the opacity of an upright picture: (height, width) uint8, 0 transparent; None where it has no alpha.

    Raises DataError as ``read_picture`` does.
    """
    with open_image(data, Path(name), spec.max_pixels) as image:
        upright = _decode(image, _orientation(image), image.size)
        if not upright.has_transparency_data:  # pixels that are upright as stored are not decoded yet
            return None
        _, alpha = split_alpha(upright, bits_per_channel(image, data))
        return None if alpha is None else np.asarray(alpha)


@contextmanager
def open_image(data: bytes, path: Path, max_pixels: int) -> Iterator[PillowImage]:
    """Open an image without decoding its pixels. Raises DataError where it is damaged or above the limits."""
    from PIL import Image, UnidentifiedImageError

    _check_length(data, path)
    check_supported(data, path)
    with (
        warnings.catch_warnings(action="ignore"),  # remarks on metadata
        named_errors(path),
        bounded_pixels(path, "error", "scale the image down"),
    ):
        try:
            with Image.open(io.BytesIO(data), formats=FORMATS) as image:
                check_header(image, path, max_pixels)
                yield image
        except UnidentifiedImageError:
            if data.startswith(_MAGIC):
                raise unreadable(
                    "unreadable", path, f"its header is damaged or cut short ({len(data)} bytes)"
                ) from None
            message = f"begins with {data[:8]!r}, as no {', '.join(FORMATS)} does"
            raise unreadable("unknown-format", path, message, "convert the file, or leave the image out") from None
        except (OSError, SyntaxError, struct.error, EOFError) as error:  # decoders differ in how they say it
            if isinstance(error, EOFError | struct.error) or "truncated" in str(error).lower():
                raise unreadable("truncated-file", path, f"the file ends too early, after {len(data)} bytes") from None
            raise
        except ValueError as error:
            if "MAX_TEXT" not in str(error):
                raise
            message = f"the texts or the profile inside the PNG are too large ({error})"
            remedy = "remove them (exiftool -all= FILE), or save the image again without metadata"
            raise unreadable("too-much-text", path, message, remedy) from None


def _check_length(data: bytes, path: Path) -> None:
    """Raise DataError where the file is empty, or is a WebP shorter than its header says (its decoder says nothing)."""
    if not data:
        raise unreadable("empty-file", path, "the file is empty")
    if data[:4] == b"RIFF" and int.from_bytes(data[4:8], "little") + 8 > len(data):
        raise unreadable("truncated-file", path, f"the file ends too early, after {len(data)} bytes")


def check_header(image: PillowImage, path: Path, max_pixels: int) -> None:
    """Raise DataError where the header alone shows that the image cannot be used."""
    width, height = image.size
    if width * height > max_pixels:
        message = f"the header declares {width}x{height} = {width * height} pixels, more than the limit of {max_pixels}"
        raise unreadable("too-large", path, message, "raise data.max_pixels if the image is meant to be that large")
    if image.mode not in PLAIN_MODES + ALPHA_MODES and not is_deep_grey(image.mode):
        raise unreadable("unsupported-mode", path, f"its colour mode {image.mode} is not supported", _CONVERT)


def _orientation(image: PillowImage) -> int:
    """Read the EXIF orientation, 1..8; 1 (upright) where there is none or the EXIF block is damaged."""
    if image.format in ("PNG", "TIFF"):
        # In PNG the block may come after the pixels, and their faults are not to be hidden below; TIFF is turned
        # upright as it is loaded.
        image.load()
    try:
        orientation = image.getexif().get(EXIF_ORIENTATION, UPRIGHT)
    except Exception:  # the parser raises anything; viewers show such an image as it is stored
        return UPRIGHT
    return orientation if orientation in range(1, 9) else UPRIGHT


def _is_plain_rgb(image: PillowImage, depth: int, orientation: int) -> bool:
    """Tell whether any decoder makes the same 8-bit RGB pixels of the file as it is."""
    if image.mode != "RGB" or orientation != UPRIGHT or "transparency" in image.info:
        return False
    if depth != 8 or not is_srgb(image.info.get("icc_profile"), image.mode):
        return False
    return image.format in EXTENSIONS and not getattr(image, "is_animated", False)


def _frame_changes(image: PillowImage) -> tuple[str, ...]:
    """Name the loss of further frames, where the file has them."""
    # The further frames of an MPO are previews of the same picture.
    return (FIRST_FRAME,) if image.format != "MPO" and getattr(image, "is_animated", False) else ()


def _decode(image: PillowImage, orientation: int, size: Size) -> PillowImage:
    """Decode the first frame, upright; a JPEG that is far larger than ``size`` already shrunk."""
    from PIL import ImageOps

    profile = image.info.get("icc_profile")
    if image.format == "JPEG":
        image.draft(None, (round(REDUCING_GAP * max(size)),) * 2)
    if orientation != UPRIGHT:
        image = ImageOps.exif_transpose(image)
        image.info["icc_profile"] = profile
    return image


def cut_middle(image: PillowImage, size: Size) -> PillowImage:
    """Cut the largest part of the aspect ratio of ``size`` from the middle of an image, and resize it to ``size``."""
    from PIL import Image

    if image.size == size:
        return image
    width, height = image.size
    kept = min(width, height * size[0] / size[1]), min(height, width * size[1] / size[0])
    # The corner is a whole pixel, so that what fits is cut and not resampled.
    left, top = ((length - part) // 2 for length, part in zip(image.size, kept, strict=True))
    box = (left, top, left + kept[0], top + kept[1])
    if kept == size:
        return image.crop(box)
    return image.resize(size, Image.Resampling.BICUBIC, box=box, reducing_gap=REDUCING_GAP)


def _png(image: PillowImage) -> bytes:
    """Encode an image as PNG, without the metadata of its source."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=PNG_LEVEL, exif=b"", icc_profile=None)
    return buffer.getvalue()
