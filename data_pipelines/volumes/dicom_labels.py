"""Labels in DICOM: segmentations (SEG, PS3.3 A.51) and structure sets of contours (RTSTRUCT, A.19).

Both name what they draw, and state places in mm: they become numbers of classes on the grid of their series.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from data_pipelines.errors import DataError, name_some
from data_pipelines.files.reading import named_errors, unreadable
from data_pipelines.notices import Notice, notice
from data_pipelines.volumes.classes import IGNORE, Labels
from data_pipelines.volumes.contours import fill_polygon, join_contours
from data_pipelines.volumes.formats.base import Geometry, check_voxels
from data_pipelines.volumes.formats.frames import SEGMENTATIONS, frame_header
from data_pipelines.volumes.formats.slices import read_dataset, unit_directions
from data_pipelines.volumes.labels import ignored_voxels

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

SUFFIX = ".dcm"
STRUCTURE_SET = "1.2.840.10008.5.1.4.1.1.481.3"
NUM_NAMED = 10
"""Names of segments or classes that a message shows."""
_CLOSED = ("CLOSED_PLANAR", "CLOSEDPLANAR_XOR")
"""Types of contours that have an inside (PS3.3 C.8.8.6.1), spelled as there."""
_LPS = np.diag([-1.0, -1.0, 1.0])
Drawn = tuple[str, np.ndarray]
"""Name of a segment or structure, and indices (N, 3) of voxels that are drawn as it."""


class _Canvas:
    """Numbers of classes on a grid, drawn one segment after the other."""

    def __init__(self, path: Path, grid: Geometry, labels: Labels) -> None:
        self.path, self.shape = path, grid.shape
        dtype = np.uint8 if labels.num_classes + 1 <= 256 else np.int16
        self.numbers = np.zeros(grid.shape, dtype)
        self.known = {_plain(name): number for name, number in labels.numbers.items() if number}
        if labels.ignored:
            self.known[IGNORE] = labels.ignored_number
        self.overlaps: Counter[str] = Counter()

    def draw(self, name: str, voxels: np.ndarray) -> None:
        """Draw voxels as the class of a name. Raises DataError for those outside the grid."""
        if ((voxels < 0) | (voxels >= self.shape)).any():
            raise _misplaced(self.path, f"{name} reaches beyond the grid of the series, {list(self.shape)}")
        place, number = tuple(voxels.T), self.known[_plain(name)]
        drawn = self.numbers[place]
        self.overlaps[name] += int(((drawn > 0) & (drawn != number)).sum())
        self.numbers[place] = number


def read_dicom_label(
    path: Path, grid: Geometry, labels: Labels, tolerance: float
) -> tuple[np.ndarray, tuple[Notice, ...]]:
    """Return the number of each voxel's class (column, row, slice) on the grid of the series, and notices.

    Segments and structures are classes by their names, whatever the case of letters; others are left out and named.
    Frames and contours may lie ``tolerance`` voxels off the grid. Raises DataError where none is a class, two classes
    overlap, all voxels are ignored, or the grid is another one.
    """
    with named_errors(path):
        dataset = read_dataset(path)
        if grid.affine is None or grid.ndim != 3:
            raise unreadable("wrong-ndim", path, "a DICOM label needs a series of slices as its image")
        kind = str(dataset.get("SOPClassUID"))
        if kind not in (*SEGMENTATIONS, STRUCTURE_SET):
            message = f"is neither a DICOM segmentation nor a structure set (SOP class {kind})"
            raise unreadable("not-a-label", path, message, "export the label as SEG, RTSTRUCT or NIfTI")
        canvas = _Canvas(path, grid, labels)
        names = _segment_names(dataset) if kind in SEGMENTATIONS else _structure_names(dataset)
        names = {number: name for number, name in names.items() if _plain(name) != _plain(labels.names[0])}
        notices = [*_left_out(path, names, canvas)]
        if kind in SEGMENTATIONS:
            drawings = _segments(path, dataset, names, grid, tolerance, canvas)
        else:
            drawings = _structures(path, dataset, names, grid, tolerance, canvas, notices)
        for name, voxels in drawings:
            canvas.draw(name, voxels)
    if overlaps := +canvas.overlaps:
        found = ", ".join(f"{name} ({count} voxels)" for name, count in overlaps.items())
        remedy = "draw each voxel as one class"
        raise unreadable("overlapping-segments", path, f"classes overlap with others: {found}", remedy)
    return canvas.numbers, (*notices, *ignored_voxels(str(path), canvas.numbers, labels))


def _left_out(path: Path, names: dict[int, str], canvas: _Canvas) -> Iterator[Notice]:
    """Say which names are no class. Raises DataError where none is."""
    others = sorted(name for name in names.values() if _plain(name) not in canvas.known)
    if len(others) == len(names):
        message = f"none of its names is that of a class: {name_some(others, NUM_NAMED) or 'there are none'}"
        remedy = f"name them as the classes: {name_some(list(canvas.known), NUM_NAMED)}"
        raise unreadable("segment-names", path, message, remedy)
    if others:
        shown = name_some(others, NUM_NAMED)
        yield notice("skipped-segment", path, f"{len(others)} names are no class and not read: {shown}")


def _plain(name: str) -> str:
    return name.strip().casefold()


def _misplaced(path: Path, message: str) -> DataError:
    remedy = "name the series that it was drawn on, or resample it onto that"
    return unreadable("geometry-mismatch", path, message, remedy)


# --- segmentations ---------------------------------------------------------------------------------------------------


def _segment_names(dataset: Dataset) -> dict[int, str]:
    segments = dataset.get("SegmentSequence") or ()
    return {int(each.SegmentNumber): str(each.SegmentLabel) for each in segments}


def _segments(
    path: Path, dataset: Dataset, names: dict[int, str], grid: Geometry, tolerance: float, canvas: _Canvas
) -> Iterator[Drawn]:
    """Yield the voxels of each segment in each frame, decoded one after the other."""
    check_voxels(path, (int(dataset.Rows), int(dataset.Columns)), math.prod(grid.shape))
    shared = next(iter(dataset.get("SharedFunctionalGroupsSequence") or ()), None)
    kind, full = dataset.SegmentationType, float(dataset.get("MaximumFractionalValue") or 1)
    frames = dataset.PerFrameFunctionalGroupsSequence
    for frame, stored in zip(frames, _iter_frames(path, dataset), strict=True):
        header = frame_header(dataset, shared, frame)
        to_voxels = _frame_to_voxels(path, header, grid, tolerance)
        if kind == "LABELMAP":
            numbers = [int(number) for number in np.unique(stored) if number]
        else:
            numbers = [int(header.ReferencedSegmentNumber)]
        for number in numbers:
            name = names.get(number, "")
            if _plain(name) not in canvas.known:
                continue
            mask = stored == number if kind == "LABELMAP" else 2 * stored.astype(np.float32) > full
            rows, columns = np.nonzero(mask)
            yield name, np.stack([columns, rows, np.ones_like(rows)], axis=1) @ to_voxels


def _iter_frames(path: Path, dataset: Dataset) -> Iterator[np.ndarray]:
    """Yield the stored values (row, column) of each frame."""
    import pydicom
    from pydicom.pixels import iter_pixels

    if int(dataset.BitsAllocated) != 1:
        yield from iter_pixels(path)
        return
    shape = int(dataset.Rows), int(dataset.Columns)
    packed, size = np.frombuffer(pydicom.dcmread(path).PixelData, np.uint8), math.prod(shape)
    for start in range(0, int(dataset.NumberOfFrames) * size, size):  # frames need not begin at a byte
        first, last = start // 8, (start + size + 7) // 8
        bits = np.unpackbits(packed[first:last], bitorder="little")
        yield bits[start - 8 * first :][:size].reshape(shape)


def _frame_to_voxels(path: Path, header: Dataset, grid: Geometry, tolerance: float) -> np.ndarray:
    """Return (3, 3) that maps (column, row, 1) of a frame to voxel indices of the grid.

    Raises DataError where its pixels are no voxels of the grid.
    """
    row, column = unit_directions(path, header)
    row_spacing, column_spacing = (float(value) for value in header.PixelSpacing)
    to_grid = np.linalg.inv(grid.affine_array())
    origin = _LPS @ np.array(header.ImagePositionPatient, dtype=np.float64)
    corner = to_grid[:3, :3] @ origin + to_grid[:3, 3]
    steps = np.stack([_LPS @ row * column_spacing, _LPS @ column * row_spacing]) @ to_grid[:3, :3].T
    exact = np.stack([*steps, corner])
    whole = np.rint(exact)
    extent = np.array([int(header.Columns) - 1, int(header.Rows) - 1, 1])[:, None]
    off = float((np.abs(exact - whole) * extent).sum(axis=0).max())
    if off > max(tolerance, 1e-3) or (np.abs(whole[:2]).sum(axis=1) != 1).any():
        raise _misplaced(path, f"the pixels of a frame are no voxels of the series: {off:.3g} voxels off its grid")
    return whole.astype(np.intp)


# --- contours --------------------------------------------------------------------------------------------------------


def _structure_names(dataset: Dataset) -> dict[int, str]:
    return {int(each.ROINumber): str(each.ROIName) for each in dataset.get("StructureSetROISequence") or ()}


def _structures(
    path: Path,
    dataset: Dataset,
    names: dict[int, str],
    grid: Geometry,
    tolerance: float,
    canvas: _Canvas,
    notices: list[Notice],
) -> Iterator[Drawn]:
    """Yield the voxels of each structure in each plane."""
    to_grid = np.linalg.inv(grid.affine_array())
    structures = [(int(each.ReferencedROINumber), each) for each in dataset.get("ROIContourSequence") or ()]
    for number, name in names.items():
        if _plain(name) in canvas.known and number not in dict(structures):
            notices += _gaps(path, name, {})
    for number, structure in structures:
        name = names.get(number, "")
        if _plain(name) not in canvas.known:
            continue
        planes: dict[int, list[np.ndarray]] = defaultdict(list)
        is_exclusive = any(_kind(each) == _CLOSED[1] for each in structure.get("ContourSequence") or ())
        for points in _polygons(path, name, structure, notices):
            voxels = points @ _LPS @ to_grid[:3, :3].T + to_grid[:3, 3]
            plane = _plane_of(path, name, voxels, grid, tolerance)
            planes[plane].append(fill_polygon(voxels[:, :2], grid.shape[:2]))
        notices += _gaps(path, name, planes)
        num_united = 0
        for plane, contours in planes.items():
            filled, united = join_contours(contours, exclusive=is_exclusive)
            num_united += united
            i, j = np.nonzero(filled)
            yield name, np.stack([i, j, np.full_like(i, plane)], axis=1)
        if num_united:
            message = f"{name}: {num_united} contours repeat or partly overlap others of their slice: united with them"
            notices.append(notice("united-contours", path, message))


def _polygons(path: Path, name: str, structure: Any, notices: list[Notice]) -> Iterator[np.ndarray]:
    """Yield the points (N, 3) of each closed contour in mm (LPS+); say which others there are."""
    others: Counter[str] = Counter()
    for contour in structure.get("ContourSequence") or ():
        kind = _kind(contour)
        if kind.startswith(_CLOSED):
            yield np.reshape(np.array(contour.ContourData, dtype=np.float64), (-1, 3))
        else:
            others[kind] += 1
    for kind, count in others.items():
        notices.append(notice("skipped-segment", path, f"{name}: {count} contours of type {kind} are not read"))


def _kind(contour: Any) -> str:
    return str(contour.ContourGeometricType)


def _plane_of(path: Path, name: str, voxels: np.ndarray, grid: Geometry, tolerance: float) -> int:
    """Return the plane of the grid that a contour lies in. Raises DataError where it lies in none.

    One between two slices belongs to neither: it was drawn on a series of other slices.
    """
    plane = int(np.rint(voxels[:, 2].mean()))
    off = float(np.abs(voxels[:, 2] - plane).max())
    if off > max(tolerance, 1e-3) or not 0 <= plane < grid.shape[2]:
        raise _misplaced(path, f"a contour of {name} lies in no plane of the series (at slice {_extent(voxels[:, 2])})")
    return plane


def _extent(places: np.ndarray) -> str:
    low, high = f"{places.min():.2f}", f"{places.max():.2f}"
    return low if low == high else f"{low} to {high}"


def _gaps(path: Path, name: str, planes: Mapping[int, Sequence[np.ndarray]]) -> Iterator[Notice]:
    """Say where planes between those of contours have none, or all have none."""
    if not planes:
        yield notice("empty-structure", path, f"{name} has no closed contour: there is nothing of this class")
    if planes and (count := max(planes) - min(planes) + 1 - len(planes)):
        message = f"{name}: {count} slices between its first and last have no contour, and stay without"
        yield notice("contour-gaps", path, message)
