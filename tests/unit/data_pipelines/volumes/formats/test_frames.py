"""Enhanced multi-frame DICOM: one file is a volume, as GDCM reads it; what is no volume is refused by name."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence as Items
from pydicom.uid import EnhancedMRImageStorage, ExplicitVRLittleEndian, RLELossless, generate_uid

from data_pipelines.errors import DataError
from data_pipelines.volumes.classes import Labels
from data_pipelines.volumes.dicom_labels import read_dicom_label
from data_pipelines.volumes.dicom_out import write_segmentation
from data_pipelines.volumes.files import read_geometry, read_volume
from data_pipelines.volumes.specs import InputSpec
from tests.support.volumes import LIMIT, rule_of

ROW, COLUMN = np.array([0.0, 0.8, -0.6]), np.array([1.0, 0.0, 0.0])
NORMAL = np.cross(ROW, COLUMN)
ORIGIN = np.array([12.0, -30.0, 44.0])
FRAMES = np.random.default_rng(1).integers(0, 4000, (4, 5, 6)).astype(np.uint16)  # (place, row, column)
ORDER = (2, 0, 3, 1)
"""Place of each frame of the file along the normal."""


def item(**tags: Any) -> Dataset:
    found = Dataset()
    for name, value in tags.items():
        setattr(found, name, value)
    return found


def group(name: str, **tags: Any) -> dict[str, Items]:
    return {name: Items([item(**tags)])}


def frame(place: float, **tags: Any) -> Dataset:
    position = (ORIGIN + 2.5 * place * NORMAL).tolist()
    return item(**group("PlanePositionSequence", ImagePositionPatient=position), **tags)


def write(
    folder: Path,
    frames: Sequence[Dataset] | None = None,
    shared: dict[str, Items] | None = None,
    pixels: np.ndarray = FRAMES[list(ORDER)],
    **tags: Any,
) -> Path:
    """Write one file of all frames into a folder of its own."""
    folder.mkdir()
    frames = [frame(place) for place in ORDER] if frames is None else frames
    shared = {
        **group("PlaneOrientationSequence", ImageOrientationPatient=[*ROW, *COLUMN]),
        **group("PixelMeasuresSequence", PixelSpacing=[0.8, 0.5], SliceThickness=2.5),
        **group("PixelValueTransformationSequence", RescaleSlope=2, RescaleIntercept=-1000, RescaleType="US"),
    } | (shared or {})
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = EnhancedMRImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid()
    dataset = item(
        **{
            "SOPClassUID": EnhancedMRImageStorage,
            "SOPInstanceUID": meta.MediaStorageSOPInstanceUID,
            "SeriesInstanceUID": "1.2.3",
            "Modality": "MR",
            "NumberOfFrames": len(frames),
            "Rows": 5,
            "Columns": 6,
            "SamplesPerPixel": 1,
            "PhotometricInterpretation": "MONOCHROME2",
            "BitsAllocated": 16,
            "BitsStored": 16,
            "HighBit": 15,
            "PixelRepresentation": 0,
            "SharedFunctionalGroupsSequence": Items([item(**shared)]),
            "PerFrameFunctionalGroupsSequence": Items(frames),
            "PixelData": pixels.tobytes(),
        }
        | tags
    )
    dataset.file_meta = meta
    dataset.save_as(folder / "scan", enforce_file_format=True)
    return folder


def test_frames_are_sorted_and_placed(tmp_path: Path) -> None:
    volume = read_volume(write(tmp_path / "s"), LIMIT)
    np.testing.assert_array_equal(volume.array, FRAMES.transpose(2, 1, 0) * 2.0 - 1000)  # (column, row, slice)
    assert volume.geometry == read_geometry(tmp_path / "s", LIMIT)
    assert volume.geometry.shape == (6, 5, 4)
    np.testing.assert_allclose(volume.geometry.spacing, (0.5, 0.8, 2.5))
    i, j, k = 4, 3, 2
    lps = ORIGIN + 2.5 * k * NORMAL + ROW * 0.5 * i + COLUMN * 0.8 * j
    np.testing.assert_allclose(volume.geometry.affine_array() @ [i, j, k, 1], [-lps[0], -lps[1], lps[2], 1])


def test_it_is_what_gdcm_reads(tmp_path: Path) -> None:
    folder = write(tmp_path / "s", [frame(place) for place in range(4)], pixels=FRAMES)
    theirs, ours = SimpleITK.ReadImage(str(folder / "scan")), read_volume(folder, LIMIT)
    np.testing.assert_array_equal(SimpleITK.GetArrayFromImage(theirs), ours.array.transpose(2, 1, 0))
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(theirs.GetDirection(), (3, 3)) * theirs.GetSpacing()
    affine[:3, 3] = theirs.GetOrigin()
    np.testing.assert_allclose(np.diag([-1, -1, 1, 1]) @ affine, ours.geometry.affine_array(), atol=1e-6)


def test_what_a_frame_states_stands_before_what_all_share(tmp_path: Path) -> None:
    frames = [
        frame(n, **group("PixelValueTransformationSequence", RescaleSlope=1, RescaleIntercept=n)) for n in range(4)
    ]
    array = read_volume(write(tmp_path / "s", frames, pixels=FRAMES), LIMIT).array
    np.testing.assert_array_equal(array, FRAMES.transpose(2, 1, 0) + np.arange(4.0))


def test_compressed_frames(tmp_path: Path) -> None:
    import pydicom

    folder = write(tmp_path / "s")
    plain = read_volume(folder, LIMIT).array
    dataset = pydicom.dcmread(folder / "scan")
    dataset.compress(RLELossless)
    dataset.save_as(folder / "scan")
    np.testing.assert_array_equal(read_volume(folder, LIMIT).array, plain)


def test_one_frame_is_a_slice(tmp_path: Path) -> None:
    volume = read_volume(write(tmp_path / "s", [frame(0)], pixels=FRAMES[:1]), LIMIT)
    assert (volume.geometry.shape, volume.geometry.spacing) == ((6, 5, 1), (0.5, 0.8, 2.5))


@pytest.mark.parametrize(
    ("frames", "tags", "rule"),
    [
        ([frame(n) for n in (0, 1, 3, 4)], {}, "uneven-slices"),
        ([frame(n) for n in (0, 1, 0, 1)], {}, "uneven-slices"),  # two points in time
        ([Dataset(), *(frame(n) for n in (1, 2, 3))], {}, "not-a-slice"),
        (None, {"NumberOfFrames": 3}, "not-a-slice"),
        (None, {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.66.4"}, "not-a-slice"),
        (None, {"PixelData": FRAMES[:2].tobytes()}, "unreadable"),
        (None, {"SamplesPerPixel": 3}, "colour-slice"),
    ],
)
def test_what_is_no_volume(tmp_path: Path, frames: list[Dataset] | None, tags: dict[str, Any], rule: str) -> None:
    assert rule_of(write(tmp_path / "s", frames, **tags)) == rule


def test_sizes_are_known_before_pixels_are_read_and_other_files_are_named(tmp_path: Path) -> None:
    folder = write(tmp_path / "s", PixelData=b"")
    assert rule_of(folder, max_voxels=119) == "too-large"
    write(tmp_path / "t")
    (tmp_path / "t" / "scan").rename(folder / "second")
    with pytest.raises(DataError, match="put a multi-frame file into a folder of its own"):
        read_volume(folder, LIMIT)


def test_a_segmentation_refers_to_the_frames_whatever_their_order(tmp_path: Path) -> None:
    named = dict.fromkeys(("PatientID", "PatientName", "PatientBirthDate", "PatientSex", "AccessionNumber"), "")
    study = {"StudyInstanceUID": "1.2", "FrameOfReferenceUID": "1.3", "ReferringPhysicianName": ""}
    empty = dict.fromkeys(("StudyID", "StudyDate", "StudyTime"), "")
    folder = write(tmp_path / "s", **named, **study, **empty)
    numbers = np.random.default_rng(0).integers(0, 2, (6, 5, 4)).astype(np.uint8)
    write_segmentation(tmp_path / "a.dcm", numbers, folder, {1: "liver"}, InputSpec())
    labels = Labels(names=("background", "liver"), values=((0,), (1,)))
    found, _ = read_dicom_label(tmp_path / "a.dcm", read_geometry(folder, LIMIT), labels, 0.01)
    np.testing.assert_array_equal(found, numbers)
