"""Boxes of an AVIF file (ISO/IEC 14496-12, 23008-12; AV1-ISOBMFF) that its decoder does not show: depth and colours."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

_PROPERTIES = (b"meta", b"iprp", b"ipco")
"""Path of the box that holds the properties of all images of a file, the main one's first."""
_FULL_BOXES = {b"meta": 4}
"""Bytes of version and flags before the content of a box."""


def avif_depth(data: bytes) -> int:
    """Read the bits per channel, 8, 10 or 12; 8 where the file does not say."""
    found = next(_find(data, (*_PROPERTIES, b"av1C")), b"")
    if len(found) < 3 or not found[2] & 0x40:  # high_bitdepth
        return 8
    return 12 if found[2] & 0x20 else 10  # twelve_bit


def avif_colour_space(data: bytes) -> tuple[int, int] | None:
    """Read the code points (ITU-T H.273) of colour primaries and transfer characteristics; None: a file has none."""
    found = (box for box in _find(data, (*_PROPERTIES, b"colr")) if box[:4] == b"nclx" and len(box) >= 8)
    box = next(found, None)
    return None if box is None else (int.from_bytes(box[4:6], "big"), int.from_bytes(box[6:8], "big"))


def _find(data: bytes, path: Sequence[bytes]) -> Iterator[bytes]:
    """Iterate over the contents of all boxes at a path, the type of each box on the way."""
    start = 0
    while start + 8 <= len(data):
        size, kind, head = int.from_bytes(data[start : start + 4], "big"), data[start + 4 : start + 8], 8
        if size == 1:
            size, head = int.from_bytes(data[start + 8 : start + 16], "big"), 16
        size = size or len(data) - start  # 0: up to the end
        if size < head:
            return
        if kind == path[0]:
            content = data[start + head + _FULL_BOXES.get(kind, 0) : start + size]
            yield from [content] if len(path) == 1 else _find(content, path[1:])
        start += size
