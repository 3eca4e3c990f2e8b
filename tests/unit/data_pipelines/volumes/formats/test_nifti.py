"""NIfTI: voxels, types and geometry as stored, and every way in which a file can be wrong, by name."""

from __future__ import annotations

import contextlib
import gzip
import tracemalloc
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from data_pipelines.errors import DataError
from data_pipelines.volumes.files import read_geometry, read_num_channels, read_volume
from data_pipelines.volumes.formats.maps import write_map
from data_pipelines.volumes.formats.nifti import write_nifti
from tests.support.volumes import LIMIT, rule_of

AFFINE = np.array([[0.0, -2.0, 0.0, 10.0], [1.5, 0.0, 0.0, -20.0], [0.0, 0.0, 3.0, 5.0], [0.0, 0.0, 0.0, 1.0]])


VOXELS = np.arange(24, dtype=np.int16).reshape(2, 3, 4)


def save(path: Path, array: np.ndarray, affine: np.ndarray = AFFINE, **header: Any) -> Path:
    """A NIfTI written by nibabel, with header fields overwritten afterwards, as broken tools do."""
    image = nib.Nifti1Image(array, affine)
    payload = bytearray(image.to_bytes())
    fields = nib.Nifti1Header(bytes(payload[:348]), check=False)
    for name, value in header.items():
        fields[name] = value
    payload[:348] = fields.binaryblock
    path.write_bytes(gzip.compress(bytes(payload)) if path.suffix == ".gz" else bytes(payload))
    return path


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz", "A.NII.GZ"])
def test_nifti_keeps_voxels_type_and_geometry(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(nib.Nifti1Image(VOXELS, AFFINE).to_bytes())  # told by content: not compressed, whatever the name
    volume = read_volume(path, LIMIT)
    np.testing.assert_array_equal(volume.array, VOXELS)
    assert volume.array.dtype == np.int16
    assert volume.geometry == read_geometry(path, LIMIT)
    assert volume.geometry.shape == (2, 3, 4)
    assert volume.geometry.spacing == (1.5, 2.0, 3.0)
    np.testing.assert_array_equal(volume.geometry.affine_array(), AFFINE)


def test_nifti2_and_big_endian(tmp_path: Path) -> None:
    nib.save(nib.Nifti2Image(VOXELS, AFFINE), tmp_path / "two.nii.gz")
    header = nib.Nifti1Header(endianness=">")
    header.set_data_dtype(">i2")
    nib.save(nib.Nifti1Image(VOXELS.astype(">i2"), AFFINE, header), tmp_path / "big.nii")
    assert (tmp_path / "big.nii").read_bytes()[:4] == (348).to_bytes(4, "big")
    for name in ("two.nii.gz", "big.nii"):
        array = read_volume(tmp_path / name, LIMIT).array
        np.testing.assert_array_equal(array, VOXELS)
        assert array.dtype == np.dtype(np.int16)


def test_scaled_integers_become_float32(tmp_path: Path) -> None:
    path = save(tmp_path / "a.nii.gz", VOXELS, scl_slope=0.5, scl_inter=-3.0)
    array = read_volume(path, LIMIT).array
    assert array.dtype == np.float32
    np.testing.assert_array_equal(array, VOXELS * 0.5 - 3.0)
    np.testing.assert_array_equal(array, np.asarray(nib.Nifti1Image.from_filename(path).dataobj))


def test_identity_scale_keeps_integers_and_float64_becomes_float32(tmp_path: Path) -> None:
    assert read_volume(save(tmp_path / "a.nii", VOXELS, scl_slope=1.0, scl_inter=0.0), LIMIT).array.dtype == np.int16
    assert read_volume(save(tmp_path / "b.nii", VOXELS.astype(np.float64)), LIMIT).array.dtype == np.float32


def test_fourth_axis_stays_last(tmp_path: Path) -> None:
    array = np.arange(48, dtype=np.float32).reshape(2, 3, 4, 2)
    path = save(tmp_path / "a.nii.gz", array)
    volume = read_volume(path, LIMIT)
    np.testing.assert_array_equal(volume.array, array)
    assert volume.geometry.shape == (2, 3, 4)
    assert read_num_channels(path, LIMIT) == 2


def test_two_dimensional_nifti_keeps_its_spacing_and_place(tmp_path: Path) -> None:
    affine = np.array([[0.5, 0, 0, 7.0], [0, -0.25, 0, 8.0], [0, 0, 0, 9.0], [0, 0, 0, 1]])  # as some write: no normal
    rows = {f"srow_{axis}": row for axis, row in zip("xyz", affine, strict=False)}
    geometry = read_geometry(save(tmp_path / "a.nii", VOXELS[0], sform_code=1, **rows), LIMIT)
    assert (geometry.shape, geometry.spacing) == ((3, 4), (0.5, 0.25))
    np.testing.assert_array_equal(geometry.affine_array()[:, [0, 1, 3]], affine[:, [0, 1, 3]])
    write_nifti(tmp_path / "b.nii", VOXELS[0], geometry.affine_array())
    assert read_geometry(tmp_path / "b.nii", LIMIT) == geometry


@settings(max_examples=25, deadline=None)
@given(
    array=npst.arrays(
        st.sampled_from([np.uint8, np.int16, np.int32, np.float32]),
        npst.array_shapes(min_dims=3, max_dims=3, max_side=5),
    ),
    spacing=st.tuples(*[st.floats(0.1, 10)] * 3),
)
def test_written_nifti_reads_back(tmp_path_factory: pytest.TempPathFactory, array: np.ndarray, spacing: Any) -> None:
    path = tmp_path_factory.mktemp("nifti") / "a.nii.gz"
    affine = np.diag([-spacing[0], spacing[1], spacing[2], 1.0])
    write_nifti(path, array, affine)
    volume = read_volume(path, LIMIT)
    np.testing.assert_array_equal(volume.array, array)
    assert volume.array.dtype == array.dtype
    np.testing.assert_allclose(volume.geometry.affine_array(), affine, rtol=1e-6)
    np.testing.assert_allclose(volume.geometry.spacing, spacing, rtol=1e-6)


def test_write_is_repeatable_and_narrows(tmp_path: Path) -> None:
    write_nifti(tmp_path / "a.nii.gz", VOXELS.astype(np.int64), AFFINE)
    write_nifti(tmp_path / "b.nii.gz", VOXELS.astype(np.int64), AFFINE)
    assert (tmp_path / "a.nii.gz").read_bytes() == (tmp_path / "b.nii.gz").read_bytes()
    assert read_volume(tmp_path / "a.nii.gz", LIMIT).array.dtype == np.int32
    with pytest.raises(ValueError, match="32 bits"):
        write_nifti(tmp_path / "c.nii.gz", np.array([[[1 << 40]]]), AFFINE)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.nii.gz", "b.nii.gz"]


def test_sides_beyond_16_bits_are_written_as_nifti_2(tmp_path: Path) -> None:
    array = np.arange(80_000, dtype=np.int32).reshape(2, 40_000, 1)
    write_nifti(tmp_path / "a.nii.gz", array, AFFINE, unit_mm=0.001)
    volume = read_volume(tmp_path / "a.nii.gz", LIMIT)
    np.testing.assert_array_equal(volume.array, array)
    np.testing.assert_allclose(volume.geometry.affine_array(), AFFINE)
    assert volume.geometry.unit_mm == 0.001
    write_map(tmp_path / "b.nii", [array.astype(np.float32)], array.shape, volume.geometry)
    payload = (tmp_path / "b.nii").read_bytes()
    assert (int.from_bytes(payload[:4], "little"), len(payload)) == (540, 544 + 4 * 80_000)
    np.testing.assert_array_equal(read_volume(tmp_path / "b.nii", LIMIT).array, array)
    np.testing.assert_array_equal(np.asarray(nib.load(tmp_path / "b.nii").dataobj), array)


def test_truncated_gzip_at_any_place_is_named(tmp_path: Path) -> None:
    whole = save(tmp_path / "a.nii.gz", np.random.default_rng(0).integers(0, 999, (8, 8, 8), np.int16)).read_bytes()
    for size in (len(whole) - 1, len(whole) - 8, len(whole) // 2, 20):
        path = tmp_path / f"cut_{size}.nii.gz"
        path.write_bytes(whole[:size])
        assert rule_of(path) == "truncated-gzip"


def test_damaged_gzip_is_named(tmp_path: Path) -> None:
    path = save(tmp_path / "a.nii.gz", VOXELS)
    whole = bytearray(path.read_bytes())
    whole[-6] ^= 0xFF  # in the checksum: the voxels themselves decompress without complaint
    path.write_bytes(bytes(whole))
    assert rule_of(path) == "corrupt-gzip"


def test_geometry_is_read_from_the_header_alone(tmp_path: Path) -> None:
    path = save(tmp_path / "a.nii.gz", np.random.default_rng(0).integers(0, 999, (16, 16, 16), np.int16))
    path.write_bytes(path.read_bytes()[:3000])
    assert read_geometry(path, LIMIT).shape == (16, 16, 16)


@pytest.mark.parametrize("reader", [read_geometry, read_volume, read_num_channels])
def test_size_is_checked_before_anything_is_read(tmp_path: Path, reader: Any) -> None:
    path = save(tmp_path / "a.nii.gz", VOXELS, dim=[3, 2000, 2000, 2000, 1, 1, 1, 1])
    with pytest.raises(DataError, match=r"2000x2000x2000 = 8000000000 voxels, more than the limit of 1073741824"):
        reader(path, 1 << 30)


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
def test_header_that_promises_more_than_the_file_can_hold(tmp_path: Path, name: str) -> None:
    path = save(tmp_path / name, VOXELS, dim=[3, 500, 500, 500, 1, 1, 1, 1])
    with pytest.raises(DataError) as caught:
        read_geometry(path, 1 << 30)
    assert caught.value.problems[0].rule == "short-file"


def test_header_that_promises_a_little_more_than_there_is(tmp_path: Path) -> None:
    assert rule_of(save(tmp_path / "a.nii.gz", VOXELS, dim=[3, 2, 3, 5, 1, 1, 1, 1])) == "short-file"
    (tmp_path / "empty.nii.gz").write_bytes(b"")
    assert rule_of(tmp_path / "empty.nii.gz") == "short-file"


def test_a_qfac_of_0_means_1(tmp_path: Path) -> None:
    quaternion = {f"quatern_{axis}": 0 for axis in "bcd"}
    fields = {"qform_code": 1, "sform_code": 0, "pixdim": [0, 1, 1, 2, 0, 0, 0, 0], **quaternion}
    geometry = read_geometry(save(tmp_path / "a.nii.gz", VOXELS, **fields), 1 << 30)
    assert np.diag(geometry.affine_array()).tolist() == [1, 1, 2, 1]


def test_gzip_bomb_does_not_fill_memory(tmp_path: Path) -> None:
    path = tmp_path / "a.nii.gz"
    path.write_bytes(gzip.compress(nib.Nifti1Image(VOXELS, AFFINE).to_bytes() + bytes(64 << 20), compresslevel=1))
    tracemalloc.start()
    try:
        assert rule_of(path) == "excess-data"
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 8 << 20


@pytest.mark.parametrize(
    ("header", "rule"),
    [
        ({"pixdim": [1, 0, 1, 1, 1, 1, 1, 1]}, "bad-spacing"),
        ({"pixdim": [1, 1, -2, 1, 1, 1, 1, 1]}, "bad-spacing"),
        ({"pixdim": [1, 1, 1, np.nan, 1, 1, 1, 1]}, "bad-spacing"),
        ({"srow_x": [np.nan, 0, 0, 0]}, "bad-affine"),
        ({"srow_x": [1, 2, 0, 0], "srow_y": [0, 0, 1, 0], "srow_z": [0, 0, 1, 0]}, "bad-affine"),
        ({"srow_z": [0, 0, 0, 0]}, "bad-spacing"),
        ({"dim": [5, 2, 3, 1, 2, 2, 1, 1]}, "wrong-ndim"),
        ({"dim": [1, 24, 1, 1, 1, 1, 1, 1]}, "wrong-ndim"),
        ({"dim": [3, 2, 3, -4, 1, 1, 1, 1]}, "wrong-ndim"),
        ({"dim": [99, 2, 3, 4, 1, 1, 1, 1]}, "wrong-ndim"),
        ({"vox_offset": 1e9}, "bad-header"),
        ({"vox_offset": -8}, "bad-header"),
        ({"datatype": 32, "bitpix": 64}, "bad-dtype"),
        ({"datatype": 77}, "unreadable"),
        ({"magic": b"ni1"}, "bad-header"),
    ],
)
def test_broken_headers_are_named(tmp_path: Path, header: dict[str, Any], rule: str) -> None:
    assert rule_of(save(tmp_path / "a.nii.gz", VOXELS, **header)) == rule


@settings(max_examples=60, deadline=None)
@given(damage=st.dictionaries(st.integers(0, 351), st.integers(0, 255), min_size=1, max_size=6))
def test_damaged_headers_never_raise_anything_else(
    tmp_path_factory: pytest.TempPathFactory, damage: dict[int, int]
) -> None:
    path = tmp_path_factory.mktemp("damage") / "a.nii"
    payload = bytearray(nib.Nifti1Image(VOXELS, AFFINE).to_bytes())
    for place, value in damage.items():
        payload[place] = value
    path.write_bytes(bytes(payload))
    with contextlib.suppress(DataError):
        assert read_volume(path, LIMIT).array.size <= LIMIT


@pytest.mark.parametrize(
    ("code", "unit_mm", "rule"),
    [(1, 1000.0, "unit-converted"), (3, 0.001, "unit-converted"), (2, 1.0, None), (0, 1.0, "unit-unstated")],
)
@pytest.mark.parametrize("is_qform", [False, True])
def test_lengths_become_millimetres(
    tmp_path: Path, code: int, unit_mm: float, rule: str | None, is_qform: bool
) -> None:
    codes = {"sform_code": 0, "qform_code": 1} if is_qform else {}
    path = save(tmp_path / "a.nii", VOXELS, AFFINE, xyzt_units=code | 8, **codes)  # 8: time in seconds
    volume = read_volume(path, LIMIT)
    np.testing.assert_allclose(volume.geometry.spacing, np.array([1.5, 2.0, 3.0]) * unit_mm, rtol=1e-6)
    np.testing.assert_allclose(volume.geometry.affine_array()[:3], AFFINE[:3] * unit_mm, rtol=1e-6, atol=1e-4 * unit_mm)
    assert [one.rule for one in volume.notices] == ([rule] if rule else [])


def test_a_label_map_is_written_in_the_unit_of_its_image(tmp_path: Path) -> None:
    save(tmp_path / "a.nii", VOXELS, AFFINE, xyzt_units=3)
    geometry = read_geometry(tmp_path / "a.nii", LIMIT)
    write_nifti(tmp_path / "b.nii", VOXELS, geometry.affine_array(), geometry.unit_mm)
    written = nib.load(tmp_path / "b.nii")
    assert written.header.get_xyzt_units()[0] == "micron"
    np.testing.assert_allclose(written.affine, AFFINE, rtol=1e-6, atol=1e-9)
    assert read_geometry(tmp_path / "b.nii", LIMIT).spacing == pytest.approx(geometry.spacing)


@pytest.mark.parametrize(
    ("stored", "read"),
    [
        ((2, 3, 4, 1), (2, 3, 4)),
        ((2, 3, 4, 1, 1), (2, 3, 4)),
        ((2, 3, 2, 1, 2), (2, 3, 2, 2)),  # ITK's vectors: an axis of time of length one before that of components
        ((2, 12, 1), (2, 12, 1)),
    ],
)
def test_axes_of_length_one_behind_the_third_are_dropped(
    tmp_path: Path, stored: tuple[int, ...], read: tuple[int, ...]
) -> None:
    volume = read_volume(save(tmp_path / "a.nii", VOXELS.reshape(stored, order="F")), LIMIT)
    np.testing.assert_array_equal(volume.array, VOXELS.reshape(read, order="F"))
    assert volume.geometry.shape == read[:3]


@pytest.mark.parametrize(
    ("fields", "rule", "said"),
    [
        ({"sform_code": 0, "qform_code": 0}, "orientation-unstated", "taken to run right to left, back to front, up"),
        ({"srow_x": [0, -1, 0, 0]}, "geometry-contradicts", "1.5 x 1 x 3 by its sform, which is used, 1.5 x 2 x 3"),
        (
            {"srow_x": [0, 2, 0, 0], "qform_code": 1},
            "geometry-contradicts",
            "to ARS by its sform, which is used, to ALS",
        ),
    ],
)
def test_guessed_and_contradicting_orientations_are_said(
    tmp_path: Path, fields: dict[str, Any], rule: str, said: str
) -> None:
    (one,) = read_volume(save(tmp_path / "a.nii", VOXELS, xyzt_units=2, **fields), LIMIT).notices
    assert one.rule == rule
    assert said in one.message


@pytest.mark.parametrize("qform_code", [0, 1])
def test_a_qform_that_is_not_used_may_be_invalid(tmp_path: Path, qform_code: int) -> None:
    pixdim = [3, 1.5, 2, 3, 0, 0, 0, 0]  # of which the first is neither 1 nor -1
    path = save(tmp_path / "a.nii", VOXELS, xyzt_units=2, pixdim=pixdim, qform_code=qform_code)
    assert read_volume(path, LIMIT).notices == ()


def test_slices_have_no_orientation_to_guess(tmp_path: Path) -> None:
    path = save(tmp_path / "a.nii", VOXELS[:, :, :1], xyzt_units=2, sform_code=0, qform_code=0)
    assert read_volume(path, LIMIT).notices == ()
