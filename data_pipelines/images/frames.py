"""Files of several frames or pages (GIF, WebP, APNG, TIFF): each frame as an image of its own."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from data_pipelines.files.pillow import is_deep_grey
from data_pipelines.images.colours import bits_per_channel, deep_grey, value_changes
from data_pipelines.images.examples import Example
from data_pipelines.images.pictures import FORMATS, PNG_LEVEL, check_header, open_image

if TYPE_CHECKING:
    from PIL.Image import Image as PillowImage

logger = logging.getLogger(__name__)

_SUFFIXES = (".gif", ".webp", ".png", ".apng", ".tif", ".tiff", ".avif")


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame or page of a file."""

    encoded: bytes
    """The file's own bytes where it holds one frame, else PNG, or TIFF for colour modes that PNG lacks."""
    milliseconds: float
    """How long it is shown; 0 where the file does not say."""
    changes: tuple[str, ...] = ()
    """Names of what the file says to be lost of its values, see ``changes``; in ``encoded`` nothing shows it any
    more."""


def split_frames(data: bytes, name: str, max_pixels: int) -> list[Frame]:
    """Decode an encoded image to its frames. Raises DataError where it is damaged or a frame is above ``max_pixels``.

    The frames are kept encoded: a clip of many frames takes about as much memory as PNG files of them.
    """
    with open_image(data, Path(name), max_pixels) as image:
        count = _num_frames(image)
        if count == 1:
            return [Frame(data, 0.0)]
        frames = []
        for number in range(count):
            image.seek(number)
            check_header(image, Path(f"{name}: frame {number}"), max_pixels)
            changes = value_changes(image, data)
            encoded = _encode(image, bits_per_channel(image, data))
            frames.append(Frame(encoded, float(image.info.get("duration", 0)), changes))
        return frames


def count_frames(path: str) -> int:
    """Count the frames of a file by its headers; 1 where they cannot be read, which decoding will name."""
    from PIL import Image

    try:
        with Image.open(path, formats=FORMATS) as image:
            return _num_frames(image)
    except Exception:  # decoders raise anything
        return 1


def with_frames(examples: Iterable[Example]) -> Iterator[Example]:
    """Replace each file of several frames by its frames, ``NAME.frame-00000`` and so on, with the caption of the whole.

    Images in Parquet and tar files stay as they are: their first frame is used, and counted.
    """
    for example in examples:
        is_file = example.part is None and example.image.lower().endswith(_SUFFIXES)
        count = count_frames(example.image) if is_file else 1
        if count == 1:
            yield example
            continue
        for number in range(count):
            yield replace(example, example_id=f"{example.example_id}.frame-{number:05d}", frame=number)


def _num_frames(image: PillowImage) -> int:
    # The further frames of an MPO are previews of the same picture.
    return 1 if image.format == "MPO" else int(getattr(image, "n_frames", 1))


def _encode(image: PillowImage, depth: int) -> bytes:
    buffer = io.BytesIO()
    if image.mode == "CMYK":
        image.save(buffer, "TIFF", icc_profile=image.info.get("icc_profile"))
    else:
        # TIFF is turned upright as it is loaded.
        exif = b"" if image.format == "TIFF" else image.info.get("exif", b"")
        whole = _full_range(image, depth) if is_deep_grey(image.mode) else image
        whole.save(buffer, "PNG", compress_level=PNG_LEVEL, exif=exif)
    return buffer.getvalue()


def _full_range(image: PillowImage, depth: int) -> PillowImage:
    """Return deep grey as PNG has it: 16 bits, 0 black."""
    from PIL import Image

    scaled = Image.fromarray(deep_grey(image, depth))
    scaled.info |= image.info
    return scaled
