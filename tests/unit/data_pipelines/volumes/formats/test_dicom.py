"""DICOM series: slices sorted and placed, and folders that are no series."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data_pipelines.errors import DataError
from data_pipelines.volumes.files import read_geometry, read_volume
from tests.support.volumes import LIMIT, rule_of

ROW, COLUMN = (0.0, 1.0, 0.0), (0.0, 0.0, -1.0)  # a sagittal scan: rows run to the back, columns down


ORIGIN, ROW_SPACING, COLUMN_SPACING, GAP = (12.0, -30.0, 44.0), 0.8, 0.5, 2.5


SLICES = np.random.default_rng(1).integers(0, 4000, (4, 5, 6)).astype(np.uint16)  # (slice, row, column)


def write_slice(path: Path, index: int, **tags: Any) -> None:
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import UID, ExplicitVRLittleEndian, generate_uid

    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = UID("1.2.840.10008.5.1.4.1.1.4")
    meta.MediaStorageSOPInstanceUID = generate_uid()
    dataset = Dataset()
    dataset.file_meta = meta
    normal = np.cross(ROW, COLUMN)
    values = {
        "SOPClassUID": meta.MediaStorageSOPClassUID,
        "SOPInstanceUID": meta.MediaStorageSOPInstanceUID,
        "SeriesInstanceUID": "1.2.3",
        "ImageOrientationPatient": [*ROW, *COLUMN],
        "ImagePositionPatient": (np.array(ORIGIN) + index * GAP * normal).tolist(),
        "PixelSpacing": [ROW_SPACING, COLUMN_SPACING],
        "Rows": 5,
        "Columns": 6,
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "BitsAllocated": 16,
        "BitsStored": 16,
        "HighBit": 15,
        "PixelRepresentation": 0,
        "PixelData": SLICES[index].tobytes(),
        **tags,
    }
    for name, value in values.items():
        setattr(dataset, name, value)
    dataset.save_as(path, enforce_file_format=True)


def write_series(folder: Path, **tags: Any) -> Path:
    folder.mkdir()
    for name, index in zip("dacb", range(4), strict=True):  # names out of order: positions sort them
        write_slice(folder / name, index, **tags)
    (folder / "._d").write_bytes(b"left by an archive")
    return folder


def test_dicom_series_is_sorted_and_placed(tmp_path: Path) -> None:
    volume = read_volume(write_series(tmp_path / "s"), LIMIT)
    np.testing.assert_array_equal(volume.array, SLICES.transpose(2, 1, 0))  # (column, row, slice)
    assert volume.array.dtype == np.uint16
    assert volume.geometry == read_geometry(tmp_path / "s", LIMIT)
    assert volume.geometry.shape == (6, 5, 4)
    np.testing.assert_allclose(volume.geometry.spacing, (COLUMN_SPACING, ROW_SPACING, GAP))
    # DICOM PS3.3 C.7.6.2.1.1: position of pixel (column i, row j) of slice k in LPS, then x and y negated for RAS.
    i, j, k = 4, 3, 2
    slice_origin = np.array(ORIGIN) + k * GAP * np.cross(ROW, COLUMN)
    lps = slice_origin + np.array(ROW) * COLUMN_SPACING * i + np.array(COLUMN) * ROW_SPACING * j
    np.testing.assert_allclose(volume.geometry.affine_array() @ [i, j, k, 1], [-lps[0], -lps[1], lps[2], 1])


def test_dicom_rescale(tmp_path: Path) -> None:
    array = read_volume(write_series(tmp_path / "s", RescaleSlope=2, RescaleIntercept=-1024), LIMIT).array
    np.testing.assert_array_equal(array, SLICES.transpose(2, 1, 0) * 2.0 - 1024)
    assert array.dtype == np.float32


def test_dicom_slices_missing_doubled_or_foreign(tmp_path: Path) -> None:
    gap = write_series(tmp_path / "gap")
    (gap / "c").unlink()
    with pytest.raises(DataError, match=r"between a and b lie 5\.000 mm|between d and a lie"):
        read_volume(gap, LIMIT)
    double = write_series(tmp_path / "double")
    write_slice(double / "e", 3)
    assert rule_of(double) == "uneven-slices"
    two = write_series(tmp_path / "two")
    write_slice(two / "e", 3, SeriesInstanceUID="9.9")
    with pytest.raises(DataError, match=r"1\.2\.3 \(4 slices\), 9\.9 \(1 slices\)"):
        read_volume(two, LIMIT)


def test_dicom_folders_that_are_no_series(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert rule_of(tmp_path / "empty") == "no-slices"
    assert rule_of(write_series(tmp_path / "large"), max_voxels=119) == "too-large"
    assert rule_of(write_series(tmp_path / "flat", PixelSpacing=[0, 1])) == "bad-spacing"
    assert rule_of(write_series(tmp_path / "short", PixelData=b"12")) == "unreadable"
    write_series(tmp_path / "text")
    (tmp_path / "text" / "notes.txt").write_text("x")
    with pytest.raises(DataError) as caught:
        read_volume(tmp_path / "text", LIMIT)
    (problem,) = caught.value.problems
    assert (problem.rule, Path(problem.path).name) == ("not-dicom", "notes.txt")
    mixed = write_series(tmp_path / "mixed")
    write_slice(mixed / "a", 1, PixelSpacing=[1, 1])
    with pytest.raises(DataError, match="PixelSpacing"):
        read_volume(mixed, LIMIT)


def test_deflated_dicom_is_refused_before_it_is_inflated(tmp_path: Path) -> None:
    import pydicom
    from pydicom.uid import DeflatedExplicitVRLittleEndian

    folder = write_series(tmp_path / "s")
    dataset = pydicom.dcmread(folder / "a")
    dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    dataset.save_as(folder / "a")
    with pytest.raises(DataError) as caught:
        read_geometry(folder, LIMIT)
    assert caught.value.problems[0].rule == "deflated-slice"
