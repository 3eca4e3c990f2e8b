"""Label maps in every format: values and places as independent readers find them, and as they are read back."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK
import tifffile
from PIL import Image

from data_pipelines.errors import InputError
from data_pipelines.volumes.files import read_geometry, read_volume, write_labels
from data_pipelines.volumes.formats.base import Geometry, written_suffix
from tests.support.volumes import LIMIT

LABELS = np.random.default_rng(0).integers(0, 5, (4, 3, 2)).astype(np.uint8)  # (i, j, k)
COS, SIN = np.cos(0.3), np.sin(0.3)
DIRECTION = np.array([[COS, -SIN, 0], [SIN, COS, 0], [0, 0, -1]])
SPACING = (1 / 3, 0.7421875, np.pi)
ORIGIN = (-12.3456789, 1 / 7, 1e-3)
AFFINE = np.eye(4)
AFFINE[:3, :3], AFFINE[:3, 3] = DIRECTION * SPACING, ORIGIN
PLACED = Geometry(LABELS.shape, SPACING, tuple(map(tuple, AFFINE.tolist())))
LPS = np.diag([-1.0, -1.0, 1.0])


@pytest.mark.parametrize("ending", [".nrrd", ".mha"])
@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.int32, np.int64, np.float32])
def test_itk_finds_values_and_place(tmp_path: Path, ending: str, dtype: type[np.number]) -> None:
    path = tmp_path / f"a{ending}"
    write_labels(path, LABELS.astype(dtype), PLACED)
    image = SimpleITK.ReadImage(str(path))
    np.testing.assert_array_equal(SimpleITK.GetArrayFromImage(image), LABELS.T.astype(dtype))
    np.testing.assert_allclose(image.GetSpacing(), SPACING, rtol=1e-15)
    np.testing.assert_allclose(image.GetOrigin(), LPS @ ORIGIN, rtol=1e-15)
    np.testing.assert_allclose(np.reshape(image.GetDirection(), (3, 3)), LPS @ DIRECTION, atol=1e-15)


@pytest.mark.parametrize("ending", [".nrrd", ".mha", ".nii.gz"])
def test_what_is_written_is_read_back(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"a{ending}"
    write_labels(path, LABELS, PLACED)
    volume = read_volume(path, LIMIT)
    np.testing.assert_array_equal(volume.array, LABELS)
    np.testing.assert_allclose(volume.geometry.affine_array(), AFFINE, rtol=1e-6 if "nii" in ending else 1e-15)
    assert volume.notices == ()
    first = path.read_bytes()
    write_labels(path, LABELS, PLACED)
    assert path.read_bytes() == first, "the same bytes each time"


@pytest.mark.parametrize(("ending", "unit_mm"), [(".nrrd", 0.001), (".nrrd", 10.0), (".nii", 0.001)])
def test_the_unit_of_the_input_is_kept(tmp_path: Path, ending: str, unit_mm: float) -> None:
    path = tmp_path / f"a{ending}"
    write_labels(path, LABELS, replace(PLACED, unit_mm=unit_mm))
    found = read_geometry(path, LIMIT)
    assert found.unit_mm == unit_mm
    np.testing.assert_allclose(found.affine_array(), AFFINE, rtol=1e-6)
    stated = SimpleITK.ReadImage(str(path)).GetSpacing()
    np.testing.assert_allclose(stated, np.array(SPACING) / (unit_mm if ending == ".nrrd" else 1), rtol=1e-6)


def test_nifti_in_mm_where_it_lacks_the_unit(tmp_path: Path) -> None:
    write_labels(tmp_path / "a.nii", LABELS, replace(PLACED, unit_mm=10.0))
    image = nibabel.load(tmp_path / "a.nii")
    assert image.header.get_xyzt_units()[0] == "mm"
    np.testing.assert_allclose(image.affine, AFFINE, rtol=1e-6)


def test_a_stack_has_a_page_per_slice_and_the_voxel_size(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    write_labels(path, LABELS, PLACED)
    with tifffile.TiffFile(path) as file:
        assert len(file.pages) == 2
        np.testing.assert_array_equal(file.asarray(), LABELS.T)
        described = file.imagej_metadata or {}
        assert (described["unit"], described["spacing"]) == ("mm", np.pi)
        per_mm = [file.pages[0].tags[name].value for name in ("XResolution", "YResolution")]
        np.testing.assert_allclose([b / a for a, b in per_mm], SPACING[:2], rtol=1e-9)
    volume = read_volume(path, LIMIT)
    np.testing.assert_array_equal(volume.array, LABELS)
    np.testing.assert_allclose(volume.geometry.spacing, SPACING, rtol=1e-9)
    write_labels(path, LABELS, Geometry(LABELS.shape, (1.0, 1.0, 1.0), has_spacing=False))
    assert not read_geometry(path, LIMIT).has_spacing, "what was not known is not made up"


@pytest.mark.parametrize("ending", [".tif", ".png"])
def test_pictures_in_grey_and_colours(tmp_path: Path, ending: str) -> None:
    grey, flat = LABELS[:, :, 0], Geometry((4, 3), (1.0, 1.0), has_spacing=False)
    colours = np.stack([grey, 2 * grey, 255 - grey], axis=-1)
    for name, array in (("grey", grey), ("deep", grey + np.uint16(999)), ("colours", colours)):
        path = tmp_path / f"{name}{ending}"
        write_labels(path, array, flat)
        np.testing.assert_array_equal(np.array(Image.open(path)), array)  # (row, column)
        np.testing.assert_array_equal(read_volume(path, LIMIT, label="values").array, array)


def test_axes_of_a_slice_are_those_of_its_format(tmp_path: Path) -> None:
    """Columns of a picture are x, its rows are y."""
    grey = LABELS[:, :, 0]
    picture = Geometry((4, 3), (1.0, 1.0), has_spacing=False)
    placed = Geometry((4, 3), SPACING[:2], tuple(map(tuple, np.diag([*SPACING[:2], 1, 1]).tolist())))
    write_labels(tmp_path / "a.nrrd", grey, picture)
    np.testing.assert_array_equal(SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(tmp_path / "a.nrrd"))), grey)
    write_labels(tmp_path / "b.mha", grey, placed)
    image = SimpleITK.ReadImage(str(tmp_path / "b.mha"))
    np.testing.assert_array_equal(SimpleITK.GetArrayFromImage(image), grey.T)
    np.testing.assert_allclose(image.GetSpacing(), SPACING[:2])
    write_labels(tmp_path / "c.png", grey, placed)
    np.testing.assert_array_equal(np.array(Image.open(tmp_path / "c.png")), grey.T)


@pytest.mark.parametrize(
    ("name", "labels", "geometry", "said"),
    [
        ("a.tif", np.full((2, 2), 70000), Geometry((2, 2), (1.0, 1.0)), "TIFF has labels of 0 to 65535"),
        ("a.tif", np.full((2, 2), -1), Geometry((2, 2), (1.0, 1.0)), "TIFF has labels of 0 to 65535"),
        ("a.jpg", LABELS, PLACED, r"label maps are written as \.nii\.gz, \.nii, \.nrrd, \.mha, \.tif, \.png"),
        ("a.mha", LABELS[0], Geometry((3, 2), SPACING[:2], PLACED.affine), None),
        (
            "a.nrrd",
            LABELS[:, 0],
            Geometry((4, 2), SPACING[:2], tuple(map(tuple, AFFINE[:, [0, 2, 1, 3]].tolist()))),
            "places 2-D images in planes of x and y alone",
        ),
    ],
)
def test_what_a_format_cannot_hold(
    tmp_path: Path, name: str, labels: np.ndarray, geometry: Geometry, said: str | None
) -> None:
    if said is None:
        write_labels(tmp_path / name, labels, geometry)
        return
    with pytest.raises(InputError, match=said):
        write_labels(tmp_path / name, labels, geometry)
    assert list(tmp_path.iterdir()) == []


def test_the_format_of_the_input_in_one_file() -> None:
    names = ("a.nii", "a.NII.GZ", "a.nrrd", "a.nhdr", "a.mha", "a.mhd", "a.tiff", "a.tif", "a.jpg", "a.png")
    written = [".nii.gz", ".nii.gz", ".nrrd", ".nrrd", ".mha", ".mha", ".tif", ".tif", ".png", ".png"]
    assert [written_suffix(name) for name in names] == written
