"""DICOM series: slices sorted and placed, and folders that are no series."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data_pipelines.errors import DataError
from data_pipelines.volumes.files import read_geometry, read_volume
from tests.support.volumes import LIMIT, rule_of

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


def test_a_slice_that_links_to_nothing_is_missing(tmp_path: Path) -> None:
    folder = write_series(tmp_path / "s")
    (folder / "e").symlink_to(tmp_path / "not fetched")
    with pytest.raises(DataError) as caught:
        read_volume(folder, LIMIT)
    (problem,) = caught.value.problems
    assert (problem.rule, problem.path) == ("file-missing", str(folder / "e"))


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


# --- intensities -----------------------------------------------------------------------------------------------------


def read_by_itk(folder: Path) -> np.ndarray:
    """Read a series with SimpleITK (GDCM), as (column, row, slice)."""
    import SimpleITK

    reader = SimpleITK.ImageSeriesReader()
    files = [folder / name for name in "acbd"]
    by_position = sorted(files, key=lambda file: read_slice_position(file))
    reader.SetFileNames([str(file) for file in by_position])
    return SimpleITK.GetArrayFromImage(reader.Execute()).transpose(2, 1, 0)


def read_slice_position(file: Path) -> float:
    import pydicom

    position = pydicom.dcmread(file, stop_before_pixels=True).ImagePositionPatient
    return float(np.cross(ROW, COLUMN) @ np.array(position, dtype=float))


@pytest.mark.parametrize(
    "tags",
    [
        {"BitsStored": 12, "HighBit": 11},
        {},
        {"PixelRepresentation": 1},
        {"RescaleSlope": "2", "RescaleIntercept": "-7"},
    ],
)
def test_low_values_that_are_white_are_inverted_as_gdcm_does(tmp_path: Path, tags: dict[str, Any]) -> None:
    series = write_series(tmp_path / "s", PhotometricInterpretation="MONOCHROME1", **tags)
    volume = read_volume(series, LIMIT)
    np.testing.assert_array_equal(volume.array, read_by_itk(series))
    assert [one.rule for one in volume.notices] == ["inverted-contrast"]


@pytest.mark.parametrize("empty", [None, ""])
def test_empty_tags_count_as_absent(tmp_path: Path, empty: str | None) -> None:
    series = write_series(tmp_path / "s", RescaleSlope=empty, RescaleIntercept=empty, SliceThickness=empty)
    np.testing.assert_array_equal(read_volume(series, LIMIT).array, SLICES.transpose(2, 1, 0))
    assert rule_of(write_series(tmp_path / "t", PixelSpacing=empty)) == "not-a-slice"
    series = write_series(tmp_path / "u", RescaleSlope=empty, RescaleIntercept="-1024", NumberOfFrames=empty)
    np.testing.assert_array_equal(read_volume(series, LIMIT).array, SLICES.transpose(2, 1, 0) - 1024.0)


def test_a_table_of_intensities_is_applied(tmp_path: Path) -> None:
    from pydicom.dataset import Dataset

    table = Dataset()
    table.LUTDescriptor = [4096, 0, 16]
    table.ModalityLUTType = "HU"
    table.LUTData = (np.arange(4096, dtype=np.uint16) * 3).tobytes()
    series = write_series(tmp_path / "s", ModalityLUTSequence=[table])
    np.testing.assert_array_equal(read_volume(series, LIMIT).array, SLICES.transpose(2, 1, 0) * 3)


# --- compression -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["RLELossless", "JPEGLSLossless", "JPEG2000Lossless"])
def test_compressed_slices_are_decoded(tmp_path: Path, name: str) -> None:
    import pydicom
    from pydicom import uid
    from pydicom.pixels import get_decoder

    series = write_series(tmp_path / "s", Rows=40, Columns=48, PixelData=np.tile(SLICES[0], (8, 8)).tobytes())
    for file in "abcd":
        dataset = pydicom.dcmread(series / file)
        dataset.compress(getattr(uid, name), generate_instance_uid=False)
        dataset.save_as(series / file)
    expected = np.repeat(np.tile(SLICES[0], (8, 8)).T[..., None], 4, axis=2)
    np.testing.assert_array_equal(read_volume(series, LIMIT).array, expected)
    assert {"gdcm", "pydicom"} & set(get_decoder(getattr(uid, name)).available_plugins)  # what the project installs


@pytest.mark.parametrize("name", ["JPEGBaseline8Bit", "JPEGLossless", "JPEGLosslessSV1", "JPEG2000"])
def test_decoders_of_the_other_syntaxes_are_installed(name: str) -> None:
    from pydicom import uid
    from pydicom.pixels import get_decoder

    assert "gdcm" in get_decoder(getattr(uid, name)).available_plugins


def test_a_missing_decoder_is_named_and_is_no_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import pydicom
    from pydicom.uid import MPEG2MPML, JPEGLSLossless

    series = write_series(tmp_path / "s")
    dataset = pydicom.dcmread(series / "a")
    dataset.compress(JPEGLSLossless, generate_instance_uid=False)
    dataset.save_as(series / "a")
    decoder = pydicom.pixels.get_decoder(JPEGLSLossless)
    monkeypatch.setattr(decoder, "_available", {})
    monkeypatch.setattr(decoder, "_unavailable", {"gdcm": ("gdcm>=3.0.10",)})
    with pytest.raises(
        DataError, match=r"JPEG-LS .* no decoder is installed \(gdcm - requires gdcm>=3.0.10\)"
    ) as caught:
        read_geometry(series, LIMIT)
    assert caught.value.problems[0].rule == "missing-decoder"
    dataset.file_meta.TransferSyntaxUID = MPEG2MPML
    dataset.save_as(series / "a")
    with pytest.raises(DataError, match=r"MPEG2 .* not supported"):
        read_geometry(series, LIMIT)


# --- positions -------------------------------------------------------------------------------------------------------


def write_positions(folder: Path, positions: list[tuple[float, float, float]], **tags: Any) -> Path:
    """Write axial slices at the given positions."""
    folder.mkdir()
    for index, position in enumerate(positions):
        axial = {"ImageOrientationPatient": [1, 0, 0, 0, 1, 0], "ImagePositionPatient": list(position)}
        write_slice(folder / f"{index:03d}", index % 4, **(axial | tags))
    return folder


@pytest.mark.parametrize(("gap", "digits"), [(0.625, 2), (0.625, 1), (0.3125, 2), (0.35, 1), (1.25, 1), (5.0, 0)])
def test_rounded_positions_are_accepted(tmp_path: Path, gap: float, digits: int) -> None:
    series = write_positions(tmp_path / "s", [(0, 0, round(k * gap - 7, digits)) for k in range(24)])
    geometry = read_geometry(series, LIMIT)
    assert geometry.spacing[2] == pytest.approx(gap, rel=0.005)
    place = geometry.affine_array() @ [0, 0, 23, 1]
    np.testing.assert_allclose(place[:3], [0, 0, 23 * gap - 7], atol=0.05)


@pytest.mark.parametrize("gap", [0.4, 0.625, 5.0])
@pytest.mark.parametrize("num_slices", [4, 40])
@pytest.mark.parametrize("missing", [1, 2, -2])
def test_a_missing_slice_is_found_wherever_it_was(tmp_path: Path, gap: float, num_slices: int, missing: int) -> None:
    depths = [round(k * gap, 2) for k in range(num_slices)]
    del depths[missing]
    assert rule_of(write_positions(tmp_path / "s", [(0, 0, depth) for depth in depths])) == "uneven-slices"


def test_the_tolerance_of_positions_is_a_setting(tmp_path: Path) -> None:
    series = write_positions(tmp_path / "s", [(0, 0, 5 * k + (0.4 if k == 3 else 0)) for k in range(9)])
    with pytest.raises(DataError, match=r"raise data.slice_tolerance_mm \(0.08\)"):
        read_volume(series, LIMIT)
    assert read_volume(series, LIMIT, 0.5).geometry.spacing[2] == pytest.approx(5, abs=0.02)
    twice = write_positions(tmp_path / "t", [(0, 0, 5 * min(k, 7)) for k in range(9)])
    with pytest.raises(DataError, match="uneven-slices"):  # a slice that is there twice passes no tolerance
        read_volume(twice, LIMIT, 50.0)


def test_a_tilted_gantry_gives_a_sheared_affine(tmp_path: Path) -> None:
    angle = np.radians(20)
    orientation = [1, 0, 0, 0, np.cos(angle), np.sin(angle)]
    series = write_positions(tmp_path / "s", [(0, 0, 2.0 * k) for k in range(6)], ImageOrientationPatient=orientation)
    geometry = read_geometry(series, LIMIT)
    # In LPS, row spacing 0.8 and column spacing 0.5: the columns are row direction, column direction, table motion.
    expected = np.diag([-1, -1, 1, 1]) @ [
        [COLUMN_SPACING, 0, 0, 0],
        [0, ROW_SPACING * np.cos(angle), 0, 0],
        [0, ROW_SPACING * np.sin(angle), 2.0, 0],
        [0, 0, 0, 1],
    ]
    np.testing.assert_allclose(geometry.affine_array(), expected, atol=1e-5)
    np.testing.assert_allclose(geometry.spacing, (COLUMN_SPACING, ROW_SPACING, 2.0), atol=1e-5)


@pytest.mark.parametrize(
    ("tags", "rule"),
    [
        ({"SeriesInstanceUID": "9.9"}, "several-series"),
        ({"Rows": 6, "PixelData": bytes(72)}, "mixed-slices"),
        ({"PixelSpacing": [2, 2]}, "mixed-slices"),
        ({"ImageOrientationPatient": [1, 0, 0, 0, 1, 0]}, "mixed-slices"),
    ],
)
@pytest.mark.parametrize("name", ["0", "b", "z"])
def test_the_odd_slice_of_a_series_is_named(tmp_path: Path, name: str, tags: dict[str, Any], rule: str) -> None:
    series = write_series(tmp_path / "s")
    write_slice(series / name, 1, **tags)
    with pytest.raises(DataError) as caught:
        read_geometry(series, LIMIT)
    assert [(problem.rule, problem.path) for problem in caught.value.problems] == [(rule, str(series / name))]


def test_two_halves_of_a_folder_are_named_by_the_folder(tmp_path: Path) -> None:
    series = write_series(tmp_path / "s")
    for name in "ab":
        write_slice(series / name, 1, PixelSpacing=[2, 2])
    with pytest.raises(DataError) as caught:
        read_geometry(series, LIMIT)
    assert [(problem.rule, problem.path) for problem in caught.value.problems] == [("mixed-slices", str(series))]


def test_rounded_directions_are_unit_vectors_and_wrong_ones_are_refused(tmp_path: Path) -> None:
    positions = [(0.0, 0.0, 2.0 * k) for k in range(4)]
    series = write_positions(tmp_path / "s", positions, ImageOrientationPatient=[0.71, 0.71, 0, -0.71, 0.71, 0])
    axes = read_geometry(series, LIMIT).affine_array()[:3, :3]
    np.testing.assert_allclose(np.linalg.norm(axes, axis=0), (COLUMN_SPACING, ROW_SPACING, 2.0))
    for name, wrong in enumerate(([0, 0, 0, 0, 0, 0], [1, 0, 0, 1, 0, 0], [2, 0, 0, 0, 2, 0], [1, 0, 0])):
        assert rule_of_any(write_positions(tmp_path / str(name), positions, ImageOrientationPatient=wrong)) == {
            "bad-affine"
        }


def rule_of_any(series: Path) -> set[str]:
    with pytest.raises(DataError) as caught:
        read_geometry(series, LIMIT)
    return {problem.rule for problem in caught.value.problems}
