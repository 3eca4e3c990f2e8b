"""DICOM segmentations and structure sets as labels, and label maps as segmentations: places, names, what is refused."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import highdicom
import numpy as np
import pydicom
import pytest
from pydicom.sequence import Sequence as Items
from pydicom.sr.codedict import codes
from pydicom.uid import generate_uid
from skimage.draw import polygon2mask

from data_pipelines.errors import DataError, InputError
from data_pipelines.volumes.checks import check_case
from data_pipelines.volumes.classes import Labels
from data_pipelines.volumes.dicom_labels import STRUCTURE_SET, read_dicom_label
from data_pipelines.volumes.dicom_out import write_segmentation
from data_pipelines.volumes.files import read_volume
from data_pipelines.volumes.formats.base import Geometry
from data_pipelines.volumes.sources.find import find_cases
from data_pipelines.volumes.specs import DataSpec, InputSpec
from tests.support.dicom import COLUMN, NORMAL, ORIGIN, ROW, write_ct, write_dicom
from tests.support.volumes import LIMIT

SHAPE = (9, 7, 5)
"""Columns, rows, slices."""
LABELS = Labels(names=("background", "liver", "tumour"), values=((0,), (1,), (7,)))
NUMBERS = np.random.default_rng(0).choice(3, SHAPE, p=[0.6, 0.3, 0.1]).astype(np.uint8)
NUMBERS[:, :, 1] = 0  # an empty slice, which a segmentation leaves out
NAMES = {1: "Liver", 2: "tumour"}


@pytest.fixture(scope="module")
def series(tmp_path_factory: pytest.TempPathFactory) -> Path:
    voxels = np.arange(NUMBERS.size, dtype=np.uint16).reshape(SHAPE)
    return write_ct(tmp_path_factory.mktemp("data") / "case" / "image", voxels)


@pytest.fixture(scope="module")
def grid(series: Path) -> Geometry:
    return read_volume(series, LIMIT).geometry


def write_seg(
    path: Path, series: Path, kind: str = "BINARY", names: Sequence[str] = tuple(NAMES.values()), share: float = 0.9
) -> Path:
    """Write the numbers by highdicom alone; sources in the reverse order of their places.

    ``share`` is the value of fractional segments, of 100.
    """
    files = sorted(series.iterdir(), key=lambda file: -float(NORMAL @ pydicom.dcmread(file).ImagePositionPatient))
    descriptions = [
        highdicom.seg.SegmentDescription(
            number,
            name,
            codes.SCT.AnatomicalStructure,
            codes.SCT.Liver,
            highdicom.seg.SegmentAlgorithmTypeValues.MANUAL,
        )
        for number, name in enumerate(names, start=1)
    ]
    planes = NUMBERS.transpose(2, 1, 0)[::-1]
    pixels = np.stack([planes == number for number in (1, 2)], axis=-1) * share if kind == "FRACTIONAL" else planes
    found = highdicom.seg.Segmentation(
        [pydicom.dcmread(file) for file in files],
        np.ascontiguousarray(pixels),
        kind,
        descriptions,
        generate_uid(),
        1,
        generate_uid(),
        1,
        "maker",
        "model",
        "1",
        "1",
        max_fractional_value=100,
    )
    found.save_as(path)
    return path


@pytest.mark.parametrize("kind", ["BINARY", "FRACTIONAL", "LABELMAP"])
def test_segments_of_highdicom_are_classes_by_name(tmp_path: Path, series: Path, grid: Geometry, kind: str) -> None:
    found, notices = read_dicom_label(write_seg(tmp_path / "label.dcm", series, kind), grid, LABELS, 0.05)
    np.testing.assert_array_equal(found, NUMBERS)
    assert notices == ()


@pytest.mark.parametrize(("share", "expected"), [(0.51, NUMBERS), (0.5, np.zeros_like(NUMBERS))])
def test_a_fraction_counts_above_one_half(
    tmp_path: Path, series: Path, grid: Geometry, share: float, expected: np.ndarray
) -> None:
    path = write_seg(tmp_path / "label.dcm", series, "FRACTIONAL", share=share)
    np.testing.assert_array_equal(read_dicom_label(path, grid, LABELS, 0.05)[0], expected)


def test_ignored_voxels_are_counted_as_in_other_formats(tmp_path: Path, series: Path, grid: Geometry) -> None:
    labels = LABELS.model_copy(update={"ignored": (9,)})
    path = write_seg(tmp_path / "label.dcm", series, names=("liver", "ignore"))
    found, (one,) = read_dicom_label(path, grid, labels, 0.05)
    assert (one.rule, (found == 3).sum()) == ("ignored-voxels", (NUMBERS == 2).sum())
    whole = np.array([[-1.0, -1.0], [9.0, -1.0], [9.0, 7.0], [-1.0, 7.0]])
    write_structures(path, ignore=[contour(whole, plane) for plane in range(5)])
    with pytest.raises(DataError, match="nothing-annotated"):
        read_dicom_label(path, grid, labels, 0.05)


def test_names_that_are_no_class_are_left_out_and_named(tmp_path: Path, series: Path, grid: Geometry) -> None:
    path = write_seg(tmp_path / "label.dcm", series, names=("couch", "TUMOUR "))
    found, notices = read_dicom_label(path, grid, LABELS, 0.05)
    np.testing.assert_array_equal(found, np.where(NUMBERS == 2, 2, 0))
    assert [(one.rule, one.message) for one in notices] == [
        ("skipped-segment", "1 names are no class and not read: couch")
    ]
    with pytest.raises(DataError, match="none of its names is that of a class: bed, couch"):
        read_dicom_label(write_seg(path, series, names=("couch", "bed")), grid, LABELS, 0.05)


def test_another_grid_is_refused(tmp_path: Path, series: Path, grid: Geometry) -> None:
    path = write_seg(tmp_path / "label.dcm", series)
    moved = np.array(grid.affine)
    moved[0, 3] += 0.2
    shifted = Geometry(grid.shape, grid.spacing, tuple(map(tuple, moved.tolist())))
    with pytest.raises(DataError, match="are no voxels of the series"):
        read_dicom_label(path, shifted, LABELS, 0.05)
    short = Geometry((*grid.shape[:2], 4), grid.spacing, grid.affine)
    with pytest.raises(DataError, match="reaches beyond the grid of the series"):
        read_dicom_label(path, short, LABELS, 0.05)
    turned = np.array(grid.affine) @ np.diag([-1, 1, 1, 1.0])
    turned[:3, 3] += np.array(grid.affine)[:3, 0] * (SHAPE[0] - 1)
    flipped = Geometry(grid.shape, grid.spacing, tuple(map(tuple, turned.tolist())))
    np.testing.assert_array_equal(read_dicom_label(path, flipped, LABELS, 0.05)[0], NUMBERS[::-1])


def test_other_dicom_is_no_label(series: Path, grid: Geometry) -> None:
    with pytest.raises(DataError, match="is neither a DICOM segmentation nor a structure set"):
        read_dicom_label(series / "0", grid, LABELS, 0.05)


def test_a_case_has_a_segmentation_as_its_label(series: Path) -> None:
    root = series.parents[1]
    write_seg(series.parent / "label.dcm", series)
    (root / "classes.json").write_text('{"background": 0, "liver": 3, "tumour": 7}')
    spec = DataSpec(root=str(root))
    data = find_cases(spec)
    assert (data.problems, [Path(case.label).name for case in data.cases]) == ((), ["label.dcm"])
    np.testing.assert_array_equal(check_case(data.cases[0], data, spec).label, NUMBERS)
    moved = data.labels.model_copy(update={"names": ("background", "spleen", "kidney")})
    with pytest.raises(DataError, match="none of its names is that of a class: Liver, tumour"):
        check_case(data.cases[0], replace(data, labels=moved), spec)


# --- contours --------------------------------------------------------------------------------------------------------

OUTER = np.array([[1.2, 1.3], [7.6, 1.1], [7.2, 5.7], [1.1, 5.4]])
INNER = np.array([[3.2, 2.2], [5.8, 2.3], [5.6, 4.4], [3.3, 4.2]])


def contour(points: np.ndarray, plane: float | np.ndarray, kind: str = "CLOSED_PLANAR") -> pydicom.Dataset:
    """Place corners, in pixels (column, row), into a slice."""
    found = pydicom.Dataset()
    lps = ORIGIN + points[:, :1] * 0.5 * ROW + points[:, 1:] * 0.8 * COLUMN + plane * 2.5 * NORMAL
    found.ContourGeometricType, found.NumberOfContourPoints = kind, len(points)
    found.ContourData = [f"{value:.6f}" for value in lps.ravel()]
    return found


def write_structures(path: Path, **contours: Sequence[pydicom.Dataset]) -> Path:
    names, drawn = [], []
    for number, (name, items) in enumerate(contours.items(), start=4):
        roi, structure = pydicom.Dataset(), pydicom.Dataset()
        roi.ROINumber, roi.ROIName = number, name
        structure.ReferencedROINumber, structure.ContourSequence = number, Items(items)
        names.append(roi)
        drawn.append(structure)
    write_dicom(path, STRUCTURE_SET, StructureSetROISequence=Items(names), ROIContourSequence=Items(drawn))
    return path


def test_contours_within_contours_leave_holes(tmp_path: Path, grid: Geometry) -> None:
    liver = [contour(OUTER, 1), contour(INNER, 1), contour(OUTER, 2), contour(OUTER[:1], 4, "POINT")]
    path = write_structures(tmp_path / "label.dcm", LIVER=liver, tumour=[contour(INNER, 1)], body=[contour(OUTER, 0)])
    found, notices = read_dicom_label(path, grid, LABELS, 0.05)
    outer, inner = (polygon2mask(SHAPE[:2], points) for points in (OUTER, INNER))
    expected = np.zeros(SHAPE, np.uint8)
    expected[:, :, 1], expected[:, :, 2] = np.where(inner, 2, outer), outer
    np.testing.assert_array_equal(found, expected)
    assert [one.message for one in notices] == [
        "1 names are no class and not read: body",
        "LIVER: 1 contours of type POINT are not read",
    ]


def test_contours_of_type_xor_are_drawn(tmp_path: Path, grid: Geometry) -> None:
    contours = [contour(points, 1, "CLOSEDPLANAR_XOR") for points in (OUTER, INNER)]
    found, notices = read_dicom_label(write_structures(tmp_path / "label.dcm", liver=contours), grid, LABELS, 0.05)
    outer, inner = (polygon2mask(SHAPE[:2], points) for points in (OUTER, INNER))
    np.testing.assert_array_equal(found[:, :, 1], outer & ~inner)
    assert notices == ()


def test_repeated_contours_do_not_cancel_and_empty_structures_are_said(tmp_path: Path, grid: Geometry) -> None:
    path = write_structures(tmp_path / "label.dcm", liver=[contour(OUTER, 1), contour(OUTER, 1)], tumour=[])
    found, notices = read_dicom_label(path, grid, LABELS, 0.05)
    np.testing.assert_array_equal(found[:, :, 1], polygon2mask(SHAPE[:2], OUTER))
    assert {one.rule: one.message for one in notices} == {
        "united-contours": "liver: 1 contours repeat or partly overlap others of their slice: united with them",
        "empty-structure": "tumour has no closed contour: there is nothing of this class",
    }


def test_slices_without_a_contour_are_said(tmp_path: Path, grid: Geometry) -> None:
    path = write_structures(tmp_path / "label.dcm", liver=[contour(OUTER, 0), contour(OUTER, 3)])
    _, (one,) = read_dicom_label(path, grid, LABELS, 0.05)
    assert (one.rule, "2 slices between its first and last have no contour" in one.message) == ("contour-gaps", True)


@pytest.mark.parametrize(
    ("tumour", "said"),
    [
        (contour(OUTER, 1), r"classes overlap with others: tumour \(\d+ voxels\)"),
        (contour(OUTER, 7), r"a contour of tumour lies in no plane of the series \(at slice 7\.00\)"),
        (contour(OUTER, 1.4), r"lies in no plane of the series \(at slice 1\.40\)"),
        (contour(OUTER, np.array([[1.0], [1.0], [2.2], [2.2]])), "lies in no plane of the series"),
    ],
)
def test_contours_that_are_refused(tmp_path: Path, grid: Geometry, tumour: pydicom.Dataset, said: str) -> None:
    path = write_structures(tmp_path / "label.dcm", liver=[contour(INNER, 1)], tumour=[tumour])
    with pytest.raises(DataError, match=said):
        read_dicom_label(path, grid, LABELS, 0.05)


# --- written ---------------------------------------------------------------------------------------------------------


def test_a_segmentation_is_what_highdicom_reads(tmp_path: Path, series: Path, grid: Geometry) -> None:
    path = tmp_path / "out.dcm"
    write_segmentation(path, NUMBERS, series, {1: "liver", 2: "tumour"}, InputSpec())
    theirs = highdicom.seg.segread(path)
    assert [each.segment_label for each in (theirs.get_segment_description(n) for n in (1, 2))] == ["liver", "tumour"]
    volume = theirs.get_volume(combine_segments=True)
    affine = np.diag([-1, -1, 1, 1]) @ volume.affine  # of (slice, row, column), LPS+ to RAS+
    places = np.argwhere(volume.array)
    ours = np.linalg.inv(grid.affine_array()) @ affine @ np.c_[places, np.ones(len(places))].T
    found = np.zeros_like(NUMBERS)
    found[tuple(np.rint(ours[:3]).astype(int))] = volume.array[tuple(places.T)]
    np.testing.assert_array_equal(found, NUMBERS)
    np.testing.assert_array_equal(read_dicom_label(path, grid, LABELS, 0.05)[0], NUMBERS)
    first = (theirs.SOPInstanceUID, theirs.SeriesInstanceUID)
    write_segmentation(path, NUMBERS, series, {1: "liver", 2: "tumour"}, InputSpec())
    again = pydicom.dcmread(path)
    assert (again.SOPInstanceUID, again.SeriesInstanceUID) == first
    assert (again.PatientID, again.StudyInstanceUID, again.Modality) == ("p", "1.2", "SEG")


def test_an_empty_prediction_is_an_empty_segmentation(tmp_path: Path, series: Path, grid: Geometry) -> None:
    write_segmentation(tmp_path / "a.dcm", np.zeros_like(NUMBERS), series, {1: "liver"}, InputSpec())
    assert not read_dicom_label(tmp_path / "a.dcm", grid, LABELS, 0.05)[0].any()


def test_what_is_missing_is_named(tmp_path: Path, series: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lacking = tmp_path / "image"
    lacking.mkdir()
    for file in series.iterdir():
        found = pydicom.dcmread(file)
        del found.StudyInstanceUID
        found.save_as(lacking / file.name)
    with pytest.raises(InputError, match="lacks StudyInstanceUID"):
        write_segmentation(tmp_path / "a.dcm", NUMBERS, lacking, {1: "liver"}, InputSpec())
    monkeypatch.setitem(__import__("sys").modules, "highdicom", None)
    with pytest.raises(InputError, match="pip install highdicom"):
        write_segmentation(tmp_path / "a.dcm", NUMBERS, series, {1: "liver"}, InputSpec())
