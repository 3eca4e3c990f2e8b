"""DICOM files and a CT series, as pydicom writes them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, CTImageStorage, ExplicitVRLittleEndian, generate_uid

ROW, COLUMN = np.array([0.0, 0.8, -0.6]), np.array([1.0, 0.0, 0.0])
NORMAL, ORIGIN = np.cross(ROW, COLUMN), np.array([12.0, -30.0, 44.0])
_PATIENT = ("PatientBirthDate", "PatientSex", "AccessionNumber", "StudyID", "StudyDate", "StudyTime")


def write_dicom(path: Path, sop_class: str, **tags: Any) -> None:
    """Write a file with these tags."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = UID(sop_class)
    meta.MediaStorageSOPInstanceUID = generate_uid()
    found = Dataset()
    found.file_meta = meta
    values = {"SOPClassUID": sop_class, "SOPInstanceUID": meta.MediaStorageSOPInstanceUID} | tags
    for name, value in values.items():
        setattr(found, name, value)
    found.save_as(path, enforce_file_format=True)


def write_ct(folder: Path, voxels: np.ndarray) -> Path:
    """Write voxels (column, row, slice) uint16 as an oblique series of 0.5 x 0.8 x 2.5 mm."""
    folder.mkdir(parents=True)
    columns, rows, slices = voxels.shape
    for index in range(slices):
        write_dicom(
            folder / str((7 * index) % slices if slices % 7 else index),  # names out of order: positions sort them
            CTImageStorage,
            **dict.fromkeys(_PATIENT, ""),
            PatientID="p",
            PatientName="P^",
            ReferringPhysicianName="",
            StudyInstanceUID="1.2",
            Modality="CT",
            SeriesInstanceUID="1.2.3",
            FrameOfReferenceUID="1.2.4",
            ImageOrientationPatient=[*ROW, *COLUMN],
            ImagePositionPatient=(ORIGIN + 2.5 * index * NORMAL).tolist(),
            PixelSpacing=[0.8, 0.5],
            SliceThickness=2.5,
            Rows=rows,
            Columns=columns,
            SamplesPerPixel=1,
            PhotometricInterpretation="MONOCHROME2",
            BitsAllocated=16,
            BitsStored=16,
            HighBit=15,
            PixelRepresentation=0,
            PixelData=np.ascontiguousarray(voxels[:, :, index].T, np.uint16).tobytes(),
        )
    return folder
