"""Enhanced multi-frame DICOM (PS3.3 C.7.6.16): the frames of one file as if each were a slice of its own.

What a slice states once, a frame states in its functional groups, or all frames share it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from data_pipelines.files.reading import unreadable

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

MAX_FRAMES = 1 << 16
SEGMENTATIONS = ("1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7")
"""SOP classes of segmentations: bits or fractions, and label maps."""
_GROUPS = {
    "PlanePositionSequence": ("ImagePositionPatient",),
    "PlaneOrientationSequence": ("ImageOrientationPatient",),
    "PixelMeasuresSequence": ("PixelSpacing", "SliceThickness", "SpacingBetweenSlices"),
    "PixelValueTransformationSequence": ("RescaleSlope", "RescaleIntercept"),
    "SegmentIdentificationSequence": ("ReferencedSegmentNumber",),
}
"""Functional group to the tags that are read of it."""
_OF_FILE = ("SeriesInstanceUID", "Rows", "Columns", "SamplesPerPixel", "PhotometricInterpretation", "BitsStored")
"""Tags that all frames have in common."""


def is_multi_frame(header: Dataset) -> bool:
    """Tell whether the file holds frames with functional groups."""
    return "PerFrameFunctionalGroupsSequence" in header


def split_frames(file: Path, header: Dataset) -> dict[Path, Dataset]:
    """Return the header of each frame, as that of a slice; its key is the file, then the frame's number from 1 on.

    Raises DataError for a segmentation, and where the number of frames is another than is declared.
    """
    if header.get("SOPClassUID") in SEGMENTATIONS:
        raise unreadable("not-a-slice", file, "is a DICOM segmentation, not an image", "name the series of images")
    frames, declared = header.PerFrameFunctionalGroupsSequence, int(header.get("NumberOfFrames") or 0)
    if len(frames) != declared or not 1 <= declared <= MAX_FRAMES:
        message = f"declares {declared} frames, and describes {len(frames)}; expected 1 to {MAX_FRAMES}"
        raise unreadable("not-a-slice", file, message, "export it again")
    shared = next(iter(header.get("SharedFunctionalGroupsSequence") or ()), None)
    return {file / str(number): frame_header(header, shared, frame) for number, frame in enumerate(frames, start=1)}


def decode_frames(file: Path, headers: dict[Path, Dataset]) -> np.ndarray:
    """Decode all frames (frame, row, column). Raises DataError where their shape is another than is declared."""
    import pydicom

    stored = np.asarray(pydicom.dcmread(file).pixel_array)
    first = next(iter(headers.values()))
    expected = (len(headers), int(first.Rows), int(first.Columns))
    if stored.size != np.prod(expected):
        message = f"expected grey frames of {expected}, got {stored.shape}"
        raise unreadable("not-a-slice", file, message, "export it again")
    return stored.reshape(expected)


def frame_number(path: Path) -> int:
    """Return the number of a frame from its key, from 1 on."""
    return int(path.name)


def frame_header(header: Dataset, shared: Dataset | None, frame: Dataset) -> Dataset:
    """Return what a frame states, as the header of a slice; ``shared`` are the groups that all frames share."""
    from pydicom.dataset import Dataset

    found = Dataset()
    for name in _OF_FILE:
        if name in header:
            setattr(found, name, header[name].value)
    for name, value in _values_of(shared, frame):
        setattr(found, name, value)
    return found


def _values_of(shared: Dataset | None, frame: Dataset) -> Iterator[tuple[str, Any]]:
    """Yield tags and values of the functional groups: a frame's own stand before shared ones."""
    for group, names in _GROUPS.items():
        items = next((each[group].value for each in (frame, shared) if each is not None and group in each), None)
        for name in names:
            if items and name in items[0]:
                yield name, items[0][name].value
