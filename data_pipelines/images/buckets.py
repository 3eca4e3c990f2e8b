"""Sizes that images are cut to: one square, or buckets of several aspect ratios and about the same number of pixels.

Training in buckets keeps the parts that a centred square would cut away (NovelAI 2022; SDXL, Podell 2023, appendix I).
"""

from __future__ import annotations

from functools import lru_cache

from data_pipelines.images.specs import ImageSpec

Size = tuple[int, int]
"""Width and height in pixels."""
MAX_RATIO = 4
"""Maximum aspect ratio of a bucket, longer side to shorter."""


def cut_size(width: int, height: int, spec: ImageSpec) -> Size:
    """Return the size that an upright image is cut to: its own, the square, or the bucket of the nearest aspect ratio.

    Distances are ratios of ratios: of 1:1 and 2:1, an image of 1.4:1 goes to the former, one of 1.5:1 to the latter.
    Of two buckets at the same distance the squarer one is taken.
    """
    if spec.crop == "none":
        return width, height
    if spec.crop == "square":
        return spec.resolution, spec.resolution
    ratio = width / height
    return min(bucket_sizes(spec.resolution, spec.bucket_multiple), key=lambda size: _stretch(ratio, size[0] / size[1]))


@lru_cache
def bucket_sizes(resolution: int, multiple: int) -> tuple[Size, ...]:
    """List the square of ``resolution`` and, for every shorter side, the longest side that needs no more pixels.

    All sides are multiples of ``multiple``. The squarest buckets come first.
    """
    shorter = range(resolution, 0, -multiple)
    pairs = [(side, resolution**2 // (side * multiple) * multiple) for side in shorter]
    kept = [(short, long) for short, long in pairs if long <= MAX_RATIO * short]
    return tuple(dict.fromkeys(size for short, long in kept for size in ((long, short), (short, long))))


def bucket_name(size: Size) -> str:
    """Format a size as the index has it: ``640x384``, width first."""
    return "{}x{}".format(*size)


def bucket_size(name: str) -> Size:
    """Parse the name of a bucket; the inverse of ``bucket_name``."""
    width, height = map(int, name.split("x"))
    return width, height


def _stretch(a: float, b: float) -> float:
    """Divide the larger of two ratios by the smaller."""
    return max(a / b, b / a)
