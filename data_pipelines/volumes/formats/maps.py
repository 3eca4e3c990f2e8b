"""Maps of float32 over the voxels of an image, one value or several each, written volume by volume."""

from __future__ import annotations

import gzip
import io
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import IO

import numpy as np

from data_pipelines.atomic import atomic_file
from data_pipelines.volumes.formats.base import Geometry
from data_pipelines.volumes.formats.nifti import nifti_header


def write_map(path: Path, volumes: Iterable[np.ndarray], shape: tuple[int, ...], geometry: Geometry) -> None:
    """Write float32 ``volumes`` of one image as an array of ``shape``, of whose last axis each has a place.

    As ``.npy``, or as NIfTI with the geometry of the image, compressed where the name ends in ``.gz``; complete or not
    at all. One volume is held at a time.
    """
    header = _npy_header(shape) if path.suffix == ".npy" else nifti_header(shape, np.float32, geometry)
    with atomic_file(path) as temporary, temporary.open("wb") as file:
        if path.name.endswith(".gz"):
            with gzip.GzipFile(filename="", mode="wb", compresslevel=1, fileobj=file, mtime=0) as stream:
                _write(stream, header, volumes)
        else:
            _write(file, header, volumes)


def _write(stream: IO[bytes] | gzip.GzipFile, header: bytes, volumes: Iterable[np.ndarray]) -> None:
    """Write the voxels in Fortran order: of NIfTI the first axis runs fastest, and .npy may have it so."""
    stream.write(header)
    for volume in volumes:
        raw = io.BytesIO(np.asarray(volume, "<f4").ravel(order="F").data)
        shutil.copyfileobj(raw, stream, 1 << 20)


def _npy_header(shape: tuple[int, ...]) -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": "<f4", "fortran_order": True, "shape": shape})
    return buffer.getvalue()
