"""Colours of an opened image to opaque 8-bit sRGB: bit depth, colour profile and transparency, in any mode.

Profiles are applied with the perceptual intent: colours beyond sRGB are compressed where the profile has a table for
it, and clipped where it has none (matrix profiles, as of cameras and screens). A profile that gives sRGB's own values,
up to ``TOLERANCE``, changes nothing.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from data_pipelines.files.pillow import is_deep_grey
from data_pipelines.images.boxes import avif_colour_space, avif_depth
from data_pipelines.images.changes import ADOBE_RGB, BAD_PROFILE, CMYK, COLOUR_TAG, DEEP, GAMMA, PROFILE, TRANSPARENT

if TYPE_CHECKING:
    from PIL.Image import Image as PillowImage

PLAIN_MODES = ("1", "L", "P", "RGB", "CMYK", "YCbCr")
ALPHA_MODES = ("RGBA", "LA", "PA")
TOLERANCE = 2
"""Largest difference to sRGB, in levels of 0..255, at which a profile counts as sRGB's."""
SRGB_GAMMA, GAMMA_TOLERANCE = 1 / 2.2, 0.02
"""Value of PNG's gAMA for sRGB, and how far others may be from it."""
_BITS_PER_SAMPLE, _PHOTOMETRIC, _WHITE_IS_ZERO = 258, 262, 0  # TIFF tags, and a value
_EXIF_IFD, _COLOUR_SPACE, _ADOBE_RGB, _UNCALIBRATED = 0x8769, 0xA001, 2, 0xFFFF
_INTEROP_IFD, _INTEROP_INDEX, _INTEROP_ADOBE_RGB = 0xA005, 1, "R03"  # DCF 2.0: an uncalibrated file of it is Adobe RGB
_SRGB_PRIMARIES, _SRGB_TRANSFERS = (1, 2), (1, 2, 6, 13, 14, 15)
"""Code points (ITU-T H.273) of colours that viewers show as sRGB: BT.709's primaries, or unspecified ones; the curve of
sRGB or of BT.709 and its relatives, or an unspecified one."""
_SPACES = {"RGB ": "RGB", "GRAY": "L", "CMYK": "CMYK"}
"""Colour space in a profile's header to Pillow's mode."""


@dataclass(frozen=True, slots=True)
class Opaque:
    """An image in opaque 8-bit sRGB."""

    image: PillowImage
    """Mode RGB."""
    changes: tuple[str, ...]
    """Names of what was changed, see ``changes``."""


def to_srgb(
    image: PillowImage,
    background: tuple[int, int, int],
    profile: bytes | None,
    depth: int,
    *,
    ignores_opacity: bool = False,
) -> Opaque:
    """Convert to opaque 8-bit sRGB; the background shows through transparent pixels, or, with ``ignores_opacity``,
    these have their own colours.

    ``profile`` is the file's colour profile, if any, ``depth`` its bits per channel.
    """
    from PIL import Image

    colours, alpha = split_alpha(image, depth)
    converted, change = _apply_profile(colours, profile)
    changes = [change] if change else []
    if alpha is None or ignores_opacity:
        return Opaque(converted, tuple(changes))
    if alpha.getextrema()[0] != 255:
        changes.append(TRANSPARENT)
    opaque = Image.new("RGB", image.size, background)
    opaque.paste(converted, mask=alpha)
    return Opaque(opaque, tuple(changes))


def is_srgb(profile: bytes | None, mode: str) -> bool:
    """Tell whether an image of this mode has sRGB values: it has no profile, or one that changes nothing."""
    return profile is None or read_profile(profile, mode).is_srgb


def value_changes(image: PillowImage, data: bytes) -> tuple[str, ...]:
    """Name what the header of an opened file shows to be lost of its values: bits above 8, colour tags without a
    profile."""
    deep = (DEEP,) if is_deep_grey(image.mode) or bits_per_channel(image, data) > 8 else ()
    return deep if "icc_profile" in image.info else (*deep, *_tag_changes(image, data))


def _tag_changes(image: PillowImage, data: bytes) -> tuple[str, ...]:
    """Name the colour tags that are not followed."""
    primaries, transfer = _colour_space(image, data)
    if primaries not in _SRGB_PRIMARIES or transfer not in _SRGB_TRANSFERS:
        return (COLOUR_TAG,)
    gamma = image.info.get("gamma")
    if gamma and "srgb" not in image.info and abs(gamma - SRGB_GAMMA) > GAMMA_TOLERANCE:
        return (GAMMA,)
    try:
        exif = image.getexif()
        space = exif.get_ifd(_EXIF_IFD).get(_COLOUR_SPACE)
        if space == _UNCALIBRATED and exif.get_ifd(_INTEROP_IFD).get(_INTEROP_INDEX) == _INTEROP_ADOBE_RGB:
            space = _ADOBE_RGB
    except Exception:  # the parser raises anything on a damaged block
        return ()
    return (ADOBE_RGB,) if space == _ADOBE_RGB else ()


def _colour_space(image: PillowImage, data: bytes) -> tuple[int, int]:
    """Read the code points of primaries and transfer that a PNG (cICP) or AVIF (nclx) states; sRGB's where it states
    none."""
    if image.format == "AVIF":
        return avif_colour_space(data) or (1, 13)
    chunk = b"\0\0\0\4cICP"
    place = data.find(chunk, 0, data.find(b"IDAT")) if image.format == "PNG" else -1
    return (1, 13) if place < 0 else (data[place + len(chunk)], data[place + len(chunk) + 1])


def bits_per_channel(image: PillowImage, data: bytes) -> int:
    """Read the bits per channel that a PNG, TIFF or AVIF stores; 8 for other formats."""
    if image.format == "PNG":
        return data[24]  # of IHDR, which comes first
    if image.format == "AVIF":
        return avif_depth(data)
    if image.format == "TIFF":
        bits = image.tag_v2.get(_BITS_PER_SAMPLE, (8,))  # type: ignore[attr-defined]  # TIFF images have it
        return int(bits[0] if isinstance(bits, tuple) else bits)
    return 8


# --- transparency ----------------------------------------------------------------------------------------------------


def split_alpha(image: PillowImage, depth: int) -> tuple[PillowImage, PillowImage | None]:
    """Split into colours (L, RGB or CMYK, 8 bits) and alpha (L), None where the image has none."""
    image.load()
    if is_deep_grey(image.mode):
        return _split_deep_grey(image, depth)
    key = _transparent_key(image, depth)
    if image.mode not in ALPHA_MODES and key is None:
        return _plain(image), None
    if key is not None:
        image.info["transparency"] = key
    rgba = image.convert("RGBA")
    alpha = rgba.getchannel("A")
    if image.mode in ("L", "LA", "1"):
        return rgba.getchannel("R"), alpha
    return rgba.convert("RGB"), alpha


def deep_grey(image: PillowImage, depth: int) -> np.ndarray:
    """Return the values of a grey image of more than 8 bits, 0 black to 65535 white: (height, width) uint16.

    Pillow gives those of a TIFF as they are stored, of 12 bits up to 4095, and also where 0 is white.
    """
    largest = 2**depth - 1
    values = np.asarray(image).astype(np.uint32)
    if image.format == "TIFF" and image.tag_v2.get(_PHOTOMETRIC) == _WHITE_IS_ZERO:  # type: ignore[attr-defined]
        values = largest - values
    return ((values * 65535 + largest // 2) // largest).astype(np.uint16)


def _split_deep_grey(image: PillowImage, depth: int) -> tuple[PillowImage, PillowImage | None]:
    """Reduce 16-bit grey to 8 bits; the value that is declared transparent is compared in 16 bits."""
    from PIL import Image

    values = deep_grey(image, depth).astype(np.uint32)
    grey = Image.fromarray(((values + 128) // 257).astype(np.uint8))  # 65535 -> 255
    key = image.info.get("transparency")
    if not isinstance(key, int):
        return grey, None
    return grey, Image.fromarray(np.where(values == key, 0, 255).astype(np.uint8))


def _transparent_key(image: PillowImage, depth: int) -> Any:
    """Return the transparent colour or index in the 8 bits that Pillow decodes to; None where there is none.

    PNG stores it in the depth of the file, which Pillow changes for the pixels alone.
    """
    key = image.info.get("transparency")
    if key is None or image.mode not in ("L", "RGB") or depth == 8:
        return key
    if depth == 16:  # Pillow keeps the high byte
        return tuple(value >> 8 for value in key) if isinstance(key, tuple) else key >> 8
    return key * 255 // (2**depth - 1)


def _plain(image: PillowImage) -> PillowImage:
    """Convert an opaque image to L, RGB or CMYK."""
    wanted = {"1": "L", "P": "RGB", "YCbCr": "RGB"}.get(image.mode, image.mode)
    return image if image.mode == wanted else image.convert(wanted)


# --- colour profiles -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Profile:
    """A colour profile for images of one mode."""

    mode: str
    """Mode that the transform takes; empty where the profile cannot be used."""
    transform: Any = None
    """``ImageCmsTransform`` to sRGB."""
    is_srgb: bool = False
    """True where it changes nothing: images are sRGB as they are."""


@lru_cache(maxsize=32)
def read_profile(profile: bytes, mode: str) -> Profile:
    """Read a profile for images of ``mode``; one that is damaged, or of another colour space, cannot be used."""
    from PIL import ImageCms

    try:
        opened = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        wanted = _SPACES.get(opened.profile.xcolor_space, "")
        if wanted == _mode_of_colours(mode) or (wanted == "RGB" and _mode_of_colours(mode) == "L"):
            transform = ImageCms.buildTransform(opened, ImageCms.createProfile("sRGB"), wanted, "RGB")
            return Profile(wanted, transform, is_srgb=_changes_nothing(transform, wanted))
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        pass
    return Profile("")


def _apply_profile(colours: PillowImage, profile: bytes | None) -> tuple[PillowImage, str]:
    """Convert L, RGB or CMYK to sRGB; also returns the name of the change, empty where there is none."""
    from PIL import ImageCms

    found = read_profile(profile, colours.mode) if profile else None
    if found is not None and found.mode and not found.is_srgb:
        image = colours if colours.mode == found.mode else colours.convert(found.mode)
        return ImageCms.applyTransform(image, found.transform), PROFILE  # type: ignore[return-value]  # not in place
    change = BAD_PROFILE if found is not None and not found.mode else ""
    if colours.mode == "CMYK":
        change = change or CMYK
    return colours if colours.mode == "RGB" else colours.convert("RGB"), change


def _mode_of_colours(mode: str) -> str:
    """Return the mode that ``to_srgb`` takes the colours of an image of ``mode`` in."""
    if mode == "CMYK":
        return "CMYK"
    return "L" if mode in ("1", "L", "LA") or is_deep_grey(mode) else "RGB"


def _changes_nothing(transform: Any, mode: str) -> bool:
    """Tell whether a transform leaves colours as they are, by a grid of them."""
    from PIL import Image, ImageCms

    levels = np.linspace(0, 255, 16).round().astype(np.uint8)
    if mode == "CMYK":
        return False
    axes = np.meshgrid(*[levels] * (3 if mode == "RGB" else 1), indexing="ij")
    grid = np.stack(axes, axis=-1).reshape(1, -1, len(axes))
    image = Image.fromarray(grid if mode == "RGB" else grid[..., 0])
    found = np.asarray(ImageCms.applyTransform(image, transform)).astype(int)
    return bool(np.abs(found - grid.astype(int)).max() <= TOLERANCE)
