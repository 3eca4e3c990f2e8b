"""Volumes and images on disk -> arrays with their geometry. Every size is known from a header before voxels are read.

    .nii, .nii.gz                 NIfTI, header by nibabel; array as stored, axes (i, j, k) or (i, j, k, channel)
    .png, .jpg, .jpeg, .tif       Pillow; array (row, column) or (row, column, channel)
    a folder of DICOM slices      pydicom; array (column, row, slice), slices sorted along their normal

Orientation is left as stored: the affine says where the voxels lie.
"""

from __future__ import annotations

import gzip
import math
import os
import uuid
import warnings
import zlib
from collections import Counter
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from data_pipelines.errors import Problem, UserError

if TYPE_CHECKING:
    from PIL.Image import Image as PillowImage
    from pydicom.dataset import FileDataset

NIFTI_SUFFIXES = (".nii.gz", ".nii")
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff")

# Deflate cannot do better than 1032:1 (RFC 1951), so a shorter file cannot hold what its header promises.
_MAX_GZIP_RATIO = 1032
# Where voxels may start at most: NIfTI extensions before them are kilobytes, a hostile offset is not.
_MAX_VOXEL_OFFSET = 1 << 24
_MAX_DICOM_SLICES = 1 << 16
_EXIF_ORIENTATION = 0x0112
_UNEVEN_SLICES = 0.01  # relative deviation of a gap between slices from the median gap

_WRITE_AGAIN = "copy the file again from its source, or leave the case out"


class VolumeError(UserError):
    """A file that cannot be read as a volume; ``problem`` names the file, the rule and the remedy."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem)  # the argument itself, so that the error survives pickling between processes
        self.problem = problem


@dataclass(frozen=True, slots=True)
class Geometry:
    """Where the voxels of the spatial axes lie."""

    shape: tuple[int, ...]
    """Voxels per spatial axis, (i, j, k) or (row, column)."""
    spacing: tuple[float, ...]
    """Distance between voxel centres in mm, per spatial axis; 1 for images without one."""
    affine: tuple[tuple[float, ...], ...] | None = None
    """4x4 from voxel indices to mm in RAS+ (x to the right, y to the front, z up); none for 2-D."""

    @property
    def ndim(self) -> int:
        """Number of spatial axes."""
        return len(self.shape)

    def affine_array(self) -> np.ndarray:
        """The affine as a (4, 4) float64 array; for 2-D one that only scales by the spacing."""
        if self.affine is not None:
            return np.array(self.affine, dtype=np.float64)
        return np.diag([*self.spacing, *[1.0] * (4 - self.ndim)])


@dataclass(frozen=True, slots=True)
class Volume:
    """An array (*spatial) or, for colour images and 4-D NIfTI, (*spatial, channels), with its geometry."""

    array: np.ndarray
    """Integer as stored, or float32."""
    geometry: Geometry


def strip_suffix(name: str) -> str:
    """The file name without its volume or image suffix: ``a_01.nii.gz`` -> ``a_01``; other names unchanged."""
    for suffix in (*NIFTI_SUFFIXES, *IMAGE_SUFFIXES):
        if name.lower().endswith(suffix):
            return name[: -len(suffix)]
    return name


def is_volume_name(name: str) -> bool:
    """Whether a file of this name is one that ``read_volume`` knows; hidden files (``._a.nii.gz``) are not."""
    return not name.startswith(".") and strip_suffix(name) != name


def read_geometry(path: str | os.PathLike[str], max_voxels: int) -> Geometry:
    """Shape, spacing and affine of a volume from its headers alone.

    Raises VolumeError where the header is unreadable, declares more than ``max_voxels``, a spacing that is not
    positive, or more data than the file can hold.
    """
    path = Path(path)
    with _named_errors(path):
        if path.is_dir():
            return _read_series(path, max_voxels)[1]
        if path.name.lower().endswith(NIFTI_SUFFIXES):
            with _open_nifti(path) as stream:
                return _read_nifti_header(stream, path, max_voxels)[1]
        with _open_image(path, max_voxels) as image:
            return _image_geometry(image)


def read_volume(path: str | os.PathLike[str], max_voxels: int, *, label: bool = False) -> Volume:
    """The voxels of one file (or one folder of DICOM slices) with their geometry.

    Integers without a scale stay integers, everything else becomes float32. Of images with a palette ``label=True``
    keeps the stored indices (they are the classes), otherwise their colours are read; transparency is dropped.
    Raises VolumeError as ``read_geometry`` does, and for truncated or corrupt data.
    """
    path = Path(path)
    with _named_errors(path):
        if path.is_dir():
            return _read_dicom(path, max_voxels)
        if path.name.lower().endswith(NIFTI_SUFFIXES):
            return _read_nifti(path, max_voxels)
        return _read_image(path, max_voxels, label)


def write_nifti(
    path: str | os.PathLike[str], array: np.ndarray, affine: np.ndarray | Sequence[Sequence[float]]
) -> None:
    """Write ``array`` (*spatial) as NIfTI, compressed where the name ends in ``.gz``; complete or not at all.

    The same input gives the same bytes (no time stamp). bool becomes uint8, 64-bit numbers become 32-bit.
    """
    import nibabel as nib

    path = Path(path)
    stored = _storable(np.asarray(array))
    payload = nib.Nifti1Image(stored, np.asarray(affine, dtype=np.float64)).to_bytes()
    if path.name.endswith(".gz"):
        payload = gzip.compress(payload, compresslevel=1, mtime=0)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.partial")
    try:
        temporary.write_bytes(payload)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _storable(array: np.ndarray) -> np.ndarray:
    if array.dtype == np.bool_:
        return array.astype(np.uint8)
    if array.dtype.kind == "f":
        return array.astype(np.float32, copy=False)
    if array.dtype.itemsize == 8:
        narrow = array.astype(np.int32)
        if not np.array_equal(narrow, array):
            raise ValueError("write_nifti: values beyond 32 bits cannot be stored")
        return narrow
    return array


# --- errors ----------------------------------------------------------------------------------------------------------


def _fail(rule: str, path: Path, message: str, remedy: str = _WRITE_AGAIN) -> VolumeError:
    return VolumeError(Problem(rule, str(path), message, remedy))


@contextmanager
def _named_errors(path: Path) -> Generator[None, None, None]:
    """Turns what the libraries raise on bad files into one VolumeError that names the file."""
    try:
        yield
    except UserError:
        raise
    except EOFError as error:
        if path.name.lower().endswith(NIFTI_SUFFIXES):
            raise _fail("truncated-gzip", path, "the compressed data ends before its end marker") from None
        raise _fail("truncated-file", path, f"the file ends too early: {error}") from None
    except (gzip.BadGzipFile, zlib.error) as error:
        raise _fail("corrupt-gzip", path, f"the compressed data is damaged: {error}") from None
    except FileNotFoundError:
        raise _fail("file-missing", path, "no such file or folder", "restore it, or leave the case out") from None
    except Exception as error:  # on damaged bytes the decoders raise anything, down to struct.error
        reason = f"{type(error).__name__}: {error}"
        raise _fail("unreadable", path, f"cannot be read: {reason:.300}") from error


def _check_voxels(path: Path, shape: Sequence[int], max_voxels: int) -> None:
    count = math.prod(shape)
    if count > max_voxels:
        sizes = "x".join(map(str, shape))
        message = f"the header declares {sizes} = {count} voxels, more than the limit of {max_voxels}"
        raise _fail("too-large", path, message, "raise data.max_voxels if the file is meant to be that large")


def _check_spacing(path: Path, spacing: Sequence[float]) -> None:
    if not all(math.isfinite(value) and value > 0 for value in spacing):
        message = f"the spacing must be positive millimetres, got {[float(value) for value in spacing]}"
        raise _fail("bad-spacing", path, message, "correct the voxel size in the header")


# --- NIfTI -----------------------------------------------------------------------------------------------------------


@contextmanager
def _open_nifti(path: Path) -> Generator[BinaryIO, None, None]:
    """The uncompressed stream, told by the first bytes and not by the name."""
    with path.open("rb") as raw:
        compressed = raw.read(2) == b"\x1f\x8b"
        raw.seek(0)
        if compressed:
            with gzip.GzipFile(fileobj=raw) as stream:
                yield stream  # type: ignore[misc]  # GzipFile reads like any binary file
        else:
            yield raw


def _read_nifti_header(stream: BinaryIO, path: Path, max_voxels: int) -> tuple[Any, Geometry]:
    """(nibabel header, geometry), everything in it checked. The stream is left after the fixed part of the header."""
    import nibabel as nib

    block = stream.read(348)
    is_nifti2 = 540 in (int.from_bytes(block[:4], "little"), int.from_bytes(block[:4], "big"))
    block += stream.read(540 - 348) if is_nifti2 else b""
    header_class = nib.Nifti2Header if is_nifti2 else nib.Nifti1Header
    if len(block) < header_class.sizeof_hdr:
        raise _fail("short-file", path, f"{len(block)} bytes are too few for a NIfTI header")
    header = header_class(block, check=False)  # check=True would mend a negative spacing in silence
    if bytes(header["magic"].item())[:3] not in (b"n+1", b"n+2"):
        raise _fail("bad-header", path, "is no single-file NIfTI", "convert it to .nii.gz")
    num_axes = int(header["dim"][0])
    shape = tuple(int(size) for size in header["dim"][1 : num_axes + 1])
    if not 2 <= num_axes <= 4 or min(shape) < 1:
        message = f"2 to 4 axes of at least one voxel are due, the header declares {num_axes}: {list(shape)}"
        raise _fail("wrong-ndim", path, message, "store one 2-D or 3-D volume per file")
    _check_voxels(path, shape, max_voxels)
    _check_promise(header, path, shape)
    return header, _nifti_geometry(header, path, shape[:3])


def _check_promise(header: Any, path: Path, shape: tuple[int, ...]) -> None:
    """The data type is one we read, and the file is long enough for what its header promises."""
    dtype = header.get_data_dtype()
    if dtype.kind not in "iuf" or dtype.itemsize > 8:
        raise _fail("bad-dtype", path, f"voxels must be integers or floats, got {dtype}", "convert the voxel type")
    offset = float(header["vox_offset"])
    if not header.sizeof_hdr <= offset <= _MAX_VOXEL_OFFSET:
        raise _fail("bad-header", path, f"the voxels cannot start at byte {offset:g}")
    promised, size = int(offset) + math.prod(shape) * dtype.itemsize, path.stat().st_size
    with path.open("rb") as raw:
        capacity = size * _MAX_GZIP_RATIO if raw.read(2) == b"\x1f\x8b" else size
    if promised > capacity:
        raise _fail("short-file", path, f"the header promises {promised} bytes of data, the file has {size}")


def _nifti_geometry(header: Any, path: Path, shape: tuple[int, ...]) -> Geometry:
    pixdim = [float(value) for value in header["pixdim"][1 : len(shape) + 1]]
    _check_spacing(path, pixdim)
    if len(shape) < 3:
        return Geometry(shape, tuple(pixdim))
    affine = np.asarray(header.get_best_affine(), dtype=np.float64)
    if not np.isfinite(affine).all():
        raise _fail("bad-affine", path, "the affine holds NaN or infinite numbers", "correct the header")
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    _check_spacing(path, spacing.tolist())
    if abs(np.linalg.det(affine[:3, :3] / spacing)) < 1e-3:
        raise _fail("bad-affine", path, "the axes of the affine are not independent", "correct the header")
    return Geometry(shape, tuple(spacing.tolist()), tuple(map(tuple, affine.tolist())))


def _read_nifti(path: Path, max_voxels: int) -> Volume:
    with _open_nifti(path) as stream:
        header, geometry = _read_nifti_header(stream, path, max_voxels)
        shape, dtype = tuple(int(n) for n in header["dim"][1 : header["dim"][0] + 1]), header.get_data_dtype()
        offset, size = int(header["vox_offset"]), math.prod(shape) * dtype.itemsize
        stream.seek(offset)
        data = stream.read(size)  # never more than the header promised, which max_voxels bounds
        if len(data) < size:
            raise _fail("short-file", path, f"the header promises {size} bytes of voxels, the file has {len(data)}")
        # Reading on to the end makes gzip compare its checksum: a file cut in its last bytes is found too.
        if stream.read(1):
            raise _fail("excess-data", path, f"more data than the {size} bytes of voxels that the header promises")
    slope, intercept = header.get_slope_inter()
    stored = np.frombuffer(data, dtype).reshape(shape, order="F")
    return Volume(_scaled(stored, slope, intercept), geometry)


def _scaled(stored: np.ndarray, slope: float | None, intercept: float | None) -> np.ndarray:
    """Integers as they are where there is nothing to scale, else float32; contiguous, in this machine's byte order."""
    slope, intercept = 1.0 if slope is None else float(slope), float(intercept or 0.0)
    if (slope, intercept) == (1.0, 0.0):
        dtype = np.dtype(np.float32) if stored.dtype.kind == "f" else stored.dtype.newbyteorder("=")
        with np.errstate(over="ignore"):  # becomes infinite, which the checks name
            return np.array(stored, dtype=dtype, order="C")
    working = np.float32 if stored.dtype.itemsize <= 2 else np.float64
    with np.errstate(over="ignore", invalid="ignore"):
        return np.array(stored.astype(working) * working(slope) + working(intercept), dtype=np.float32, order="C")


# --- PNG, JPEG, TIFF -------------------------------------------------------------------------------------------------


@contextmanager
def _open_image(path: Path, max_voxels: int) -> Generator[PillowImage, None, None]:
    """An image whose pixels are not yet decoded, of a size within the limits (Pillow's own, 179 Mpx, holds too)."""
    from PIL import Image

    if not path.name.lower().endswith(IMAGE_SUFFIXES):
        known = ", ".join((*NIFTI_SUFFIXES, *IMAGE_SUFFIXES))
        raise _fail("unknown-format", path, f"the name ends in none of {known}", "convert the file")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        try:
            image = Image.open(path, formats=("PNG", "JPEG", "TIFF"))
        except Image.DecompressionBombError as error:
            raise _fail("too-large", path, str(error), "cut the image into tiles") from None
    with image:
        _check_voxels(path, image.size[::-1], max_voxels)
        if getattr(image, "n_frames", 1) > 1:
            raise _fail("several-pages", path, f"holds {image.n_frames} pages", "store one image per file")  # type: ignore[attr-defined]
        yield image


def _image_geometry(image: PillowImage) -> Geometry:
    width, height = image.size
    if image.getexif().get(_EXIF_ORIENTATION, 1) in (5, 6, 7, 8):  # stored on its side
        width, height = height, width
    return Geometry((height, width), (1.0, 1.0))


def _read_image(path: Path, max_voxels: int, label: bool) -> Volume:
    from PIL import ImageOps

    with _open_image(path, max_voxels) as image:
        upright = ImageOps.exif_transpose(image)
    if not (label and upright.mode == "P"):
        upright = upright.convert(_plain_mode(upright.mode))
    array = np.array(upright)
    if array.dtype == np.bool_:
        array = array.astype(np.uint8)
    return Volume(array, Geometry(array.shape[:2], (1.0, 1.0)))


def _plain_mode(mode: str) -> str:
    """Grey and colour stay what they are, transparency goes, palettes and other colour spaces become RGB."""
    if mode in ("1", "L", "F", "I") or mode.startswith("I;16"):
        return mode
    return "L" if mode in ("LA", "La") else "RGB"


def read_num_channels(path: str | os.PathLike[str], max_voxels: int) -> int:
    """How many channels ``read_volume`` gives for an image or volume, from its header alone."""
    path = Path(path)
    with _named_errors(path):
        if path.is_dir():
            return 1
        if path.name.lower().endswith(NIFTI_SUFFIXES):
            with _open_nifti(path) as stream:
                header, _ = _read_nifti_header(stream, path, max_voxels)
                return int(header["dim"][4]) if header["dim"][0] == 4 else 1
        with _open_image(path, max_voxels) as image:
            return len(_plain_mode(image.mode)) if _plain_mode(image.mode) == "RGB" else 1


# --- DICOM -----------------------------------------------------------------------------------------------------------


def _read_dicom(path: Path, max_voxels: int) -> Volume:
    import pydicom

    files, geometry = _read_series(path, max_voxels)
    slices = []
    for file in files:
        with _named_errors(file):
            dataset = pydicom.dcmread(file)
            slope, intercept = float(dataset.get("RescaleSlope", 1)), float(dataset.get("RescaleIntercept", 0))
            slices.append(_scaled(dataset.pixel_array.T, slope, intercept))  # (row, column) -> (column, row)
    return Volume(np.stack(slices, axis=-1), geometry)


def _read_series(folder: Path, max_voxels: int) -> tuple[list[Path], Geometry]:
    """The files of the one series in a folder, sorted along the slice normal, and their common geometry."""
    headers = _read_slice_headers(folder)
    _check_one_series(folder, headers)
    first = next(iter(headers.values()))
    row, column = np.reshape(np.array(first.ImageOrientationPatient, dtype=np.float64), (2, 3))
    normal = np.cross(row, column)
    depth = {file: float(normal @ np.array(h.ImagePositionPatient, dtype=np.float64)) for file, h in headers.items()}
    files = sorted(headers, key=lambda file: (depth[file], file.name))
    row_spacing, column_spacing = (float(value) for value in first.PixelSpacing)
    thickness = float(first.get("SliceThickness") or 1.0)
    gap = _slice_gap(folder, files, [depth[file] for file in files], thickness)
    shape = (int(first.Columns), int(first.Rows), len(files))
    spacing = (column_spacing, row_spacing, gap)
    _check_voxels(folder, shape, max_voxels)
    _check_spacing(folder, spacing)
    affine = np.eye(4)
    affine[:3, :3] = np.stack([row, column, normal], axis=1) * spacing
    affine[:3, 3] = headers[files[0]].ImagePositionPatient
    affine[:2] *= -1  # DICOM counts to the left and back (LPS+), NIfTI to the right and front (RAS+)
    return files, Geometry(shape, spacing, tuple(map(tuple, affine.tolist())))


def _read_slice_headers(folder: Path) -> dict[Path, FileDataset]:
    import pydicom
    from pydicom.errors import InvalidDicomError
    from pydicom.filereader import read_file_meta_info
    from pydicom.uid import DeflatedExplicitVRLittleEndian

    files = sorted(f for f in folder.iterdir() if f.is_file() and not f.name.startswith(".") and f.name != "DICOMDIR")
    if not files or len(files) > _MAX_DICOM_SLICES:
        message = f"1 to {_MAX_DICOM_SLICES} DICOM slices are due, found {len(files)} files"
        raise _fail("no-slices", folder, message, "put the files of one DICOM series into the folder")
    headers = {}
    for file in files:
        try:
            syntax = read_file_meta_info(file).get("TransferSyntaxUID")
            if syntax == DeflatedExplicitVRLittleEndian:  # would be inflated whole, to any size, to read the header
                raise _fail("deflated-slice", file, "is a deflated DICOM file", "export it without deflate")
            headers[file] = pydicom.dcmread(file, stop_before_pixels=True)
        except InvalidDicomError:
            raise _fail("not-dicom", file, "is no DICOM file", "move it out of the folder") from None
        missing = [tag for tag in _SLICE_TAGS if headers[file].get(tag) is None]
        if missing or int(headers[file].get("NumberOfFrames") or 1) > 1:
            message = f"lacks {', '.join(missing)}" if missing else "holds several frames"
            raise _fail("not-a-slice", file, f"one image slice per file is due; it {message}", "export single slices")
    return headers


_SLICE_TAGS = (
    "SeriesInstanceUID",
    "ImageOrientationPatient",
    "ImagePositionPatient",
    "PixelSpacing",
    "Rows",
    "Columns",
)


def _check_one_series(folder: Path, headers: dict[Path, FileDataset]) -> None:
    series = Counter(str(header.SeriesInstanceUID) for header in headers.values())
    if len(series) > 1:
        found = ", ".join(f"{uid} ({count} slices)" for uid, count in sorted(series.items()))
        raise _fail("several-series", folder, f"one series is due, found {found}", "keep one series per folder")
    first = next(iter(headers.values()))
    for file, header in headers.items():
        if int(header.get("SamplesPerPixel") or 1) != 1:
            raise _fail("colour-slice", file, "colour DICOM is not supported", "export grey slices")
        for tag in ("Rows", "Columns", "PixelSpacing", "ImageOrientationPatient"):
            ours, theirs = np.atleast_1d(header[tag].value), np.atleast_1d(first[tag].value)
            if not np.allclose(ours.astype(float), theirs.astype(float), atol=1e-4):
                message = f"{tag} is {header[tag].value}, in the first slice {first[tag].value}"
                raise _fail("mixed-slices", file, message, "keep the slices of one scan only (no localisers)")


def _slice_gap(folder: Path, files: list[Path], depths: list[float], thickness: float) -> float:
    """Distance between slices in mm; raises where slices are missing, doubled or unevenly spaced."""
    if len(files) == 1:
        return thickness
    gaps = np.diff(depths)
    typical = float(np.median(gaps))
    for index, gap in enumerate(gaps):
        if gap <= 0 or abs(gap - typical) > _UNEVEN_SLICES * typical:
            between = f"between {files[index].name} and {files[index + 1].name}"
            message = f"slices must be evenly spaced: {between} lie {gap:.3f} mm, elsewhere {typical:.3f} mm"
            remedy = "restore the missing slices, or remove those that are there twice"
            raise _fail("uneven-slices", folder, message, remedy)
    return typical
