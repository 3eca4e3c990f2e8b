"""NRRD and MetaImage: voxels and places as an equivalent NIfTI has them, and files that are wrong, by name."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import SimpleITK

from data_pipelines.volumes.files import read_geometry, read_num_channels, read_volume, source_files
from tests.support.volumes import LIMIT, rule_of

VOXELS = np.random.default_rng(0).integers(-300, 300, (4, 3, 2)).astype(np.int16)  # (k, j, i)
FORMATS = [(ending, compressed) for ending in (".nrrd", ".nhdr", ".mha", ".mhd") for compressed in (False, True)]


def image_of(array: np.ndarray, *, is_vector: bool = False) -> SimpleITK.Image:
    """An oblique image, 30 degrees about z, of uneven spacing."""
    image = SimpleITK.GetImageFromArray(array, isVector=is_vector)
    image.SetSpacing((0.5, 1.5, 3.0))
    image.SetOrigin((10.0, -20.0, 30.0))
    cos, sin = np.cos(np.pi / 6), np.sin(np.pi / 6)
    image.SetDirection((cos, -sin, 0, sin, cos, 0, 0, 0, 1))
    return image


@pytest.mark.parametrize(("ending", "compressed"), FORMATS)
def test_voxels_and_place_are_those_of_nifti(tmp_path: Path, ending: str, compressed: bool) -> None:
    path = tmp_path / f"a{ending}"
    for name in (path, tmp_path / "a.nii"):
        SimpleITK.WriteImage(image_of(VOXELS), str(name), compressed and name == path)
    ours, theirs = read_volume(path, LIMIT), read_volume(tmp_path / "a.nii", LIMIT)
    np.testing.assert_array_equal(ours.array, theirs.array)
    assert ours.array.dtype == np.int16
    assert ours.geometry == read_geometry(path, LIMIT)
    assert ours.geometry.shape == (2, 3, 4)
    np.testing.assert_allclose(ours.geometry.spacing, (0.5, 1.5, 3.0))
    np.testing.assert_allclose(ours.geometry.affine_array(), theirs.geometry.affine_array(), atol=1e-5)


def test_vectors_and_a_fourth_axis_of_one(tmp_path: Path) -> None:
    vectors = np.stack([VOXELS, VOXELS * 2], axis=-1)
    SimpleITK.WriteImage(image_of(vectors, is_vector=True), str(tmp_path / "a.mha"))
    np.testing.assert_array_equal(read_volume(tmp_path / "a.mha", LIMIT).array, vectors.transpose(2, 1, 0, 3))
    assert read_num_channels(tmp_path / "a.mha", LIMIT) == 2
    SimpleITK.WriteImage(SimpleITK.JoinSeries(image_of(VOXELS)), str(tmp_path / "b.nrrd"))
    np.testing.assert_array_equal(read_volume(tmp_path / "b.nrrd", LIMIT).array, VOXELS.T)
    assert read_num_channels(tmp_path / "b.nrrd", LIMIT) == 1


def test_a_header_in_ras_is_placed_as_it_says(tmp_path: Path) -> None:
    header = (
        "NRRD0004\ntype: short\ndimension: 3\nspace: right-anterior-superior\nsizes: 2 3 4\n"
        "space directions: (2,0,0) (0,3,0) (0,0,4)\nspace origin: (5,6,7)\nencoding: raw\nendian: little\n"
    )
    (tmp_path / "a.nrrd").write_bytes(header.encode() + b"\n" + VOXELS.astype("<i2").tobytes())
    volume = read_volume(tmp_path / "a.nrrd", LIMIT)
    np.testing.assert_array_equal(volume.array, VOXELS.T)
    np.testing.assert_allclose(volume.geometry.affine_array(), [[2, 0, 0, 5], [0, 3, 0, 6], [0, 0, 4, 7], [0, 0, 0, 1]])
    microns = header + 'space units: "microns" "microns" "microns"\n'
    (tmp_path / "b.nrrd").write_bytes(microns.encode() + b"\n" + VOXELS.astype("<i2").tobytes())
    volume = read_volume(tmp_path / "b.nrrd", LIMIT)
    np.testing.assert_allclose(volume.geometry.spacing, (0.002, 0.003, 0.004))
    np.testing.assert_allclose(volume.geometry.affine_array()[:3, 3], (0.005, 0.006, 0.007))
    assert [one.rule for one in volume.notices] == ["unit-converted"]
    (tmp_path / "c.nrrd").write_bytes(microns.replace("microns", "furlongs").encode() + b"\n" + bytes(48))
    assert rule_of(tmp_path / "c.nrrd") == "bad-spacing"


@pytest.mark.parametrize(("ending", "compressed"), FORMATS)
def test_voxels_that_end_too_early(tmp_path: Path, ending: str, compressed: bool) -> None:
    path = tmp_path / f"a{ending}"
    SimpleITK.WriteImage(image_of(VOXELS), str(path), compressed)
    data = source_files(path)[-1]
    assert (data == path) == (ending in (".nrrd", ".mha"))
    data.write_bytes(data.read_bytes()[:-9])
    assert rule_of(path) in ("short-file", "unreadable")


def test_headers_that_are_wrong(tmp_path: Path) -> None:
    path = tmp_path / "a.mhd"
    SimpleITK.WriteImage(image_of(VOXELS), str(path))
    header = path.read_text()
    for name in ("/etc/hostname", "../a.raw", "LIST", "a%02d.raw 1 2 1"):
        path.write_text(re.sub("ElementDataFile = .*", f"ElementDataFile = {name}", header))
        assert rule_of(path) == "detached-data"
        assert source_files(path) == [path]
    path.write_text(header.replace("DimSize = 2 3 4", "DimSize = 2000 3000 4000"))
    assert rule_of(path) == "too-large"
    path.write_text(header.replace("DimSize = 2 3 4", "DimSize = 20 30 40"))
    assert rule_of(path) == "short-file"
    path.write_text(header)
    path.with_suffix(".raw").unlink()
    with pytest.raises(AssertionError):  # the missing file is named, not the header
        rule_of(path)
