"""Label maps as DICOM segmentations (SEG) of the series that they were predicted from, by highdicom."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from data_pipelines.atomic import atomic_file
from data_pipelines.digests import digest_of
from data_pipelines.errors import InputError
from data_pipelines.volumes.formats.frames import frame_number
from data_pipelines.volumes.formats.slices import place_slices, read_dataset, read_headers
from data_pipelines.volumes.specs import InputSpec

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

SUFFIX = ".dcm"
MAKER = "unetflow"
_MAX_LABEL = 64
"""Characters of a segment's label (value representation LO)."""
_PARTS = ("PatientID", "StudyInstanceUID", "FrameOfReferenceUID", "SOPInstanceUID")
"""What a segmentation refers to its series by."""


def write_segmentation(
    path: Path, numbers: np.ndarray, series: Path, names: Mapping[int, str], limits: InputSpec
) -> None:
    """Write numbers of classes (column, row, slice) as a binary SEG of the series in a folder; complete or not at all.

    ``names`` are the segments: number of each class but the background to its name, in the order of the numbers from
    1 on. The file's identity depends on series and labels alone. Raises InputError where highdicom is missing, and for
    series that lack what a segmentation refers to.
    """
    seg = _import_highdicom()
    headers = read_headers(series)
    files, _ = place_slices(series, headers, limits.max_voxels, limits.slice_tolerance_mm)
    planes = np.zeros(numbers.shape, np.uint8 if len(names) < 256 else np.uint16)
    for segment, number in enumerate(names, start=1):
        planes[numbers == number] = segment
    planes = planes.transpose(2, 1, 0)  # (slice, row, column)
    if files[0].parent.is_file():  # frames of one file, in their order there
        sources = [read_dataset(files[0].parent)]
        planes = planes[np.argsort([frame_number(key) for key in files])]
    else:
        sources = [read_dataset(file) for file in files]
    _check_parts(series, sources)
    with atomic_file(path) as temporary:
        _build(seg, sources, np.ascontiguousarray(planes), list(names.values())).save_as(temporary)


def _import_highdicom() -> Any:
    try:
        import highdicom
    except ImportError:
        raise InputError(
            "DICOM segmentations need the package highdicom: pip install highdicom, or write .nii.gz"
        ) from None
    return highdicom


def _check_parts(series: Path, sources: list[Dataset]) -> None:
    lacking = [name for name in _PARTS if any(name not in source for source in sources)]
    if lacking:
        raise InputError(f"{series}: lacks {', '.join(lacking)}, which a DICOM segmentation needs; write .nii.gz")


def _build(highdicom: Any, sources: list[Dataset], planes: np.ndarray, names: list[str]) -> Any:
    from pydicom.uid import generate_uid

    release = _release()
    pixels = hashlib.sha256(planes.data).hexdigest()
    identity = digest_of([[str(source.SOPInstanceUID) for source in sources], names, pixels])
    return highdicom.seg.Segmentation(
        source_images=sources,
        pixel_array=planes,
        segmentation_type=highdicom.seg.SegmentationTypeValues.BINARY,
        segment_descriptions=_describe_segments(highdicom, names, release),
        series_instance_uid=generate_uid(entropy_srcs=["series", identity]),
        sop_instance_uid=generate_uid(entropy_srcs=["instance", identity]),
        series_number=1,
        instance_number=1,
        manufacturer=MAKER,
        manufacturer_model_name=MAKER,
        software_versions=release,
        device_serial_number="0",
        series_description="Segmentation",
    )


def _describe_segments(highdicom: Any, names: list[str], release: str) -> list[Any]:
    """Describe the segments, numbered from 1 on; what a class is, its name alone says."""
    from pydicom.sr.codedict import codes

    algorithm = highdicom.AlgorithmIdentificationSequence(
        name=MAKER, family=codes.DCM.ArtificialIntelligence, version=release
    )
    return [
        highdicom.seg.SegmentDescription(
            segment_number=number,
            segment_label=name[:_MAX_LABEL],
            segmented_property_category=codes.SCT.AnatomicalStructure,
            segmented_property_type=codes.SCT.AnatomicalStructure,
            algorithm_type=highdicom.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
            algorithm_identification=algorithm,
        )
        for number, name in enumerate(names, start=1)
    ]


def _release() -> str:
    """Return this project's version; of a registered model, which brings its code along, 0."""
    try:
        return version(MAKER)
    except PackageNotFoundError:
        return "0"
