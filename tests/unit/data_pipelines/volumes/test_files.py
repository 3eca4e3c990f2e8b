"""Reading volumes: geometry and voxels as stored, and every way in which a file can be wrong, by name."""

from __future__ import annotations

import contextlib
import gzip
import pickle
import tracemalloc
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from PIL import Image

from data_pipelines.errors import DataError
from data_pipelines.volumes.files import is_volume_name, read_geometry, read_num_channels, read_volume, strip_suffix
from data_pipelines.volumes.formats.base import Geometry
from data_pipelines.volumes.formats.nifti import write_nifti

LIMIT = 1 << 20
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


def rule_of(path: Path, max_voxels: int = LIMIT) -> str:
    with pytest.raises(DataError) as caught:
        read_volume(path, max_voxels)
    (problem,) = caught.value.problems
    assert problem.message
    assert problem.remedy
    assert path.name in problem.path
    return problem.rule


# --- NIfTI -----------------------------------------------------------------------------------------------------------


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


def test_two_dimensional_nifti_has_spacing_and_no_affine(tmp_path: Path) -> None:
    geometry = read_geometry(save(tmp_path / "a.nii", VOXELS[0], np.diag([0.5, 0.25, 1, 1])), LIMIT)
    assert geometry == Geometry((3, 4), (0.5, 0.25), None)


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
        ({"dim": [5, 2, 3, 2, 2, 1, 1, 1]}, "wrong-ndim"),
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


def test_what_is_no_volume_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.nii.gz").write_bytes(b"PK\x03\x04" * 200)
    (tmp_path / "a.mha").write_bytes(b"x")
    assert rule_of(tmp_path / "a.nii.gz") == "bad-header"
    assert rule_of(tmp_path / "a.mha") == "unknown-format"
    assert rule_of(tmp_path / "absent.nii") == "file-missing"


def test_error_survives_pickling(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        read_volume(tmp_path / "absent.nii", LIMIT)
    copy = pickle.loads(pickle.dumps(caught.value))
    assert copy.problems == caught.value.problems
    assert str(copy) == str(caught.value)


def test_names() -> None:
    assert [strip_suffix(n) for n in ("a_01.nii.gz", "a.b.NII", "x.jpeg", "x.json")] == ["a_01", "a.b", "x", "x.json"]
    assert [is_volume_name(n) for n in ("a.nii.gz", "._a.nii.gz", ".png", "a.txt")] == [True, False, False, False]


# --- PNG, JPEG, TIFF -------------------------------------------------------------------------------------------------


def test_grey_colour_and_transparent_images(tmp_path: Path) -> None:
    grey = np.arange(12, dtype=np.uint8).reshape(3, 4)
    colour = np.arange(36, dtype=np.uint8).reshape(3, 4, 3)
    Image.fromarray(grey).save(tmp_path / "grey.png")
    Image.fromarray(colour).save(tmp_path / "colour.tif")
    Image.fromarray(np.dstack([colour, grey])).save(tmp_path / "alpha.png")
    Image.fromarray(grey.astype(np.uint16) * 5000).save(tmp_path / "deep.png")
    Image.fromarray(grey % 2 == 1).save(tmp_path / "bits.png")
    np.testing.assert_array_equal(read_volume(tmp_path / "grey.png", LIMIT).array, grey)
    np.testing.assert_array_equal(read_volume(tmp_path / "colour.tif", LIMIT).array, colour)
    np.testing.assert_array_equal(read_volume(tmp_path / "alpha.png", LIMIT).array, colour)
    np.testing.assert_array_equal(read_volume(tmp_path / "deep.png", LIMIT).array, grey.astype(np.uint16) * 5000)
    bits = read_volume(tmp_path / "bits.png", LIMIT)
    np.testing.assert_array_equal(bits.array, grey % 2)
    assert bits.array.dtype == np.uint8
    assert bits.geometry == read_geometry(tmp_path / "colour.tif", LIMIT) == Geometry((3, 4), (1.0, 1.0), None)
    assert [read_num_channels(tmp_path / n, LIMIT) for n in ("grey.png", "colour.tif", "alpha.png")] == [1, 3, 3]


def test_palette_is_colour_for_images_and_class_for_labels(tmp_path: Path) -> None:
    indices = np.array([[0, 1], [2, 1]], dtype=np.uint8)
    image = Image.fromarray(indices, mode="P")
    image.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0])
    image.save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_volume(tmp_path / "a.png", LIMIT, label=True).array, indices)
    expected = [[[0, 0, 0], [255, 0, 0]], [[0, 255, 0], [255, 0, 0]]]
    np.testing.assert_array_equal(read_volume(tmp_path / "a.png", LIMIT).array, expected)


def test_exif_orientation_is_applied(tmp_path: Path) -> None:
    stored = np.array([[1, 2, 3], [4, 5, 6]], dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6  # the stored right-hand side is the top: turn clockwise to see it upright
    Image.fromarray(stored).save(tmp_path / "a.png", exif=exif)
    volume = read_volume(tmp_path / "a.png", LIMIT)
    np.testing.assert_array_equal(volume.array, [[4, 1], [5, 2], [6, 3]])
    assert volume.geometry == read_geometry(tmp_path / "a.png", LIMIT)


def test_broken_images_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (64, 64), np.uint8)
    image = Image.fromarray(noise)
    image.save(tmp_path / "pages.tif", save_all=True, append_images=[image])
    assert rule_of(tmp_path / "pages.tif") == "several-pages"
    image.save(tmp_path / "a.png")
    assert rule_of(tmp_path / "a.png", max_voxels=64 * 64 - 1) == "too-large"
    (tmp_path / "cut.png").write_bytes((tmp_path / "a.png").read_bytes()[:2000])
    assert rule_of(tmp_path / "cut.png") == "unreadable"
    (tmp_path / "text.jpg").write_text("no image")
    assert rule_of(tmp_path / "text.jpg") == "unreadable"
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    assert rule_of(tmp_path / "a.png") == "too-large"


# --- DICOM -----------------------------------------------------------------------------------------------------------

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
