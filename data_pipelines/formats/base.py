"""What all formats share: arrays with their geometry, errors that name the file, checks of what a header declares."""

from __future__ import annotations

import gzip
import math
import zlib
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from data_pipelines.errors import Problem, UserError

NIFTI_SUFFIXES = (".nii.gz", ".nii")
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff")

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


def failure(rule: str, path: Path, message: str, remedy: str = _WRITE_AGAIN) -> VolumeError:
    """The error of one file, to be raised; ``remedy`` says what its owner can do."""
    return VolumeError(Problem(rule, str(path), message, remedy))


@contextmanager
def named_errors(path: Path) -> Generator[None, None, None]:
    """Turns what the libraries raise on bad files into one VolumeError that names the file."""
    try:
        yield
    except UserError:
        raise
    except EOFError as error:
        if path.name.lower().endswith(NIFTI_SUFFIXES):
            raise failure("truncated-gzip", path, "the compressed data ends before its end marker") from None
        raise failure("truncated-file", path, f"the file ends too early: {error}") from None
    except (gzip.BadGzipFile, zlib.error) as error:
        raise failure("corrupt-gzip", path, f"the compressed data is damaged: {error}") from None
    except FileNotFoundError:
        raise failure("file-missing", path, "no such file or folder", "restore it, or leave the case out") from None
    except Exception as error:  # on damaged bytes the decoders raise anything, down to struct.error
        reason = f"{type(error).__name__}: {error}"
        raise failure("unreadable", path, f"cannot be read: {reason:.300}") from error


def check_voxels(path: Path, shape: Sequence[int], max_voxels: int) -> None:
    """Raises VolumeError where ``shape`` holds more than ``max_voxels``."""
    count = math.prod(shape)
    if count > max_voxels:
        sizes = "x".join(map(str, shape))
        message = f"the header declares {sizes} = {count} voxels, more than the limit of {max_voxels}"
        raise failure("too-large", path, message, "raise data.max_voxels if the file is meant to be that large")


def check_spacing(path: Path, spacing: Sequence[float]) -> None:
    """Raises VolumeError where a spacing is not positive and finite."""
    if not all(math.isfinite(value) and value > 0 for value in spacing):
        message = f"the spacing must be positive millimetres, got {[float(value) for value in spacing]}"
        raise failure("bad-spacing", path, message, "correct the voxel size in the header")


def scaled(stored: np.ndarray, slope: float | None, intercept: float | None) -> np.ndarray:
    """Integers as they are where there is nothing to scale, else float32; contiguous, in this machine's byte order."""
    slope, intercept = 1.0 if slope is None else float(slope), float(intercept or 0.0)
    if (slope, intercept) == (1.0, 0.0):
        dtype = np.dtype(np.float32) if stored.dtype.kind == "f" else stored.dtype.newbyteorder("=")
        with np.errstate(over="ignore"):  # becomes infinite, which the checks name
            return np.array(stored, dtype=dtype, order="C")
    working: type[Any] = np.float32 if stored.dtype.itemsize <= 2 else np.float64
    with np.errstate(over="ignore", invalid="ignore"):
        return np.array(stored.astype(working) * working(slope) + working(intercept), dtype=np.float32, order="C")
