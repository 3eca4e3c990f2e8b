"""Checking cases: good ones come back as arrays, and every broken rule is named with its numbers."""

from __future__ import annotations

import gzip
import itertools
import re
import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from data_pipelines.errors import DataError, Problem
from data_pipelines.volumes.cases import Case, Dataset
from data_pipelines.volumes.checks import CheckedCase, check_case, check_dataset, check_image
from data_pipelines.volumes.classes import Labels
from data_pipelines.volumes.formats.base import Geometry
from data_pipelines.volumes.grids import check_same_grid
from data_pipelines.volumes.specs import DataSpec, InputSpec
from tests.support.volumes import numbered

SHAPE = (4, 5, 6)
AFFINE = np.diag([1.0, 1.0, 2.0, 1.0])
IMAGE = np.random.default_rng(0).normal(100, 10, SHAPE).astype(np.float32)
LABEL = np.arange(120).reshape(SHAPE).astype(np.uint8) % 3


_SPEC_FIELDS = ("ndim", "max_voxels", "grid_tolerance")


def write(path: Path, array: np.ndarray, affine: np.ndarray = AFFINE) -> str:
    nib.save(nib.Nifti1Image(array, affine), path)
    return str(path)


def dataset_of(case: Case, num_classes: int = 3, channels: tuple[str, ...] = ("MR",)) -> Dataset:
    labels = numbered("background", *(f"organ{k}" for k in range(1, num_classes)))
    return Dataset("set", (case,), labels, channels)


def write_case(tmp_path: Path, image: Any, label: Any, **fields: Any) -> tuple[Case, Dataset, DataSpec]:
    """Write image and label, each an array or an (array, affine) pair."""
    files = []
    for name, given, default in (("image", image, IMAGE), ("label", label, LABEL)):
        array, affine = given if isinstance(given, tuple) else (default if given is None else given, AFFINE)
        files.append(write(tmp_path / f"{name}.nii.gz", array, affine))
    case = Case("case", (files[0],), files[1], "subject")
    spec = DataSpec(root="x", **{key: fields.pop(key) for key in _SPEC_FIELDS if key in fields})
    return case, dataset_of(case, **fields), spec


def check(tmp_path: Path, image: Any = None, label: Any = None, **fields: Any) -> CheckedCase:
    return check_case(*write_case(tmp_path, image, label, **fields))


def problems(tmp_path: Path, image: Any = None, label: Any = None, **fields: Any) -> list[Problem]:
    return problems_of(*write_case(tmp_path, image, label, **fields))


def problems_of(case: Case, dataset: Dataset, spec: DataSpec) -> list[Problem]:
    with pytest.raises(DataError) as caught:
        check_case(case, dataset, spec)
    return list(caught.value.problems)


def only(found: list[Problem]) -> Problem:
    (problem,) = found
    assert problem.case_id == "case"
    assert problem.remedy
    return problem


def test_good_case(tmp_path: Path) -> None:
    result = check(tmp_path)
    np.testing.assert_array_equal(result.image, IMAGE[None])
    np.testing.assert_array_equal(result.label, LABEL)
    assert (result.image.dtype, result.label.dtype) == (np.float32, np.uint8)
    assert (result.case_id, result.subject) == ("case", "subject")
    assert result.geometry.spacing == (1.0, 1.0, 2.0)


def test_orientation_is_left_as_stored(tmp_path: Path) -> None:
    flipped = np.diag([-1.0, -1.0, 2.0, 1.0])
    result = check(tmp_path, (IMAGE, flipped), (LABEL, flipped))
    np.testing.assert_array_equal(result.image[0], IMAGE)


def test_whole_numbers_in_a_float_label_are_fine(tmp_path: Path) -> None:
    result = check(tmp_path, IMAGE.astype(np.int16), LABEL.astype(np.float32))
    assert result.image.dtype == np.float32
    assert result.label.dtype == np.uint8


def test_many_classes_need_int16(tmp_path: Path) -> None:
    label = np.full(SHAPE, 299, dtype=np.int32)
    result = check(tmp_path, label=label, num_classes=300)
    assert result.label.dtype == np.int16
    assert result.label.max() == 299


# --- geometry --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("label", "message"),
    [
        ((LABEL[:, :, :5], AFFINE), r"shape \[4, 5, 5\] differs from \[4, 5, 6\] of image.nii.gz"),
        ((LABEL, np.diag([1, 1, 2.1, 1])), r"spacing \[1.0, 1.0, 2.1\] mm differs from \[1.0, 1.0, 2.0\] mm"),
        ((LABEL, np.diag([-1, 1, 2, 1])), r"orientation LAS differs from RAS .* 6.00 mm apart"),
        ((LABEL, AFFINE + np.eye(4, k=3) * 0.5), r"position or rotation differs .* 0.50 mm apart"),
        ((LABEL, AFFINE + np.eye(4, k=3) * 0.11), r"position or rotation differs .* 0.11 mm apart"),
    ],
)
def test_geometry_that_disagrees(tmp_path: Path, label: Any, message: str) -> None:
    problem = only(problems(tmp_path, label=label))
    assert problem.rule == "geometry-mismatch"
    assert problem.path.endswith("label.nii.gz")
    assert re.search(message, problem.message), problem.message


def test_geometry_within_tolerance(tmp_path: Path) -> None:
    nearly = AFFINE + np.eye(4, k=3) * 0.09  # the smallest spacing is 1 mm, the tolerance a tenth of it
    np.testing.assert_array_equal(check(tmp_path, label=(LABEL, nearly)).label, LABEL)
    assert only(problems(tmp_path, label=(LABEL, nearly), grid_tolerance=0.05)).rule == "geometry-mismatch"
    fine = AFFINE @ np.diag([0.1, 0.1, 0.1, 1])
    assert only(problems(tmp_path, (IMAGE, fine), (LABEL, fine + np.eye(4, k=3) * 0.05))).rule == "geometry-mismatch"


def test_rotation_is_found_though_shape_and_spacing_agree() -> None:
    angle = np.radians(1)
    turn = np.eye(4)
    turn[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    here, there = (
        Geometry((101, 1, 1), (1.0, 1.0, 1.0), tuple(map(tuple, affine.tolist()))) for affine in (np.eye(4), turn)
    )
    with pytest.raises(DataError) as caught:
        check_same_grid("a", here, "b", there)
    (problem,) = caught.value.problems
    assert "1.75 mm apart" in problem.message  # the chord 2 * 100 * sin(0.5 degrees)


def test_channels_on_different_grids(tmp_path: Path) -> None:
    files = tuple(write(tmp_path / f"{n}.nii", IMAGE[:, :, :size]) for n, size in (("a", 6), ("b", 4)))
    case = Case("case", files, write(tmp_path / "l.nii", LABEL), "s")
    problem = only(problems_of(case, dataset_of(case, channels=("T1", "T2")), DataSpec(root="x")))
    assert (problem.rule, problem.path) == ("geometry-mismatch", files[1])


def test_a_label_on_the_same_grid_along_other_axes_is_reordered(tmp_path: Path) -> None:
    for axes in itertools.permutations(range(3)):
        for flips in itertools.product((False, True), repeat=3):
            turn = np.zeros((4, 4))  # index in the stored label -> index in the image
            for stored, (axis, flip) in enumerate(zip(axes, flips, strict=True)):
                turn[axis, stored] = -1 if flip else 1
                turn[axis, 3] = SHAPE[axis] - 1 if flip else 0
            turn[3, 3] = 1
            reversed_axes = [stored for stored, flip in enumerate(flips) if flip]
            label = np.flip(LABEL.transpose(axes), reversed_axes)
            result = check(tmp_path, label=(label, AFFINE @ turn))
            np.testing.assert_array_equal(result.label, LABEL)
            is_reordered = axes != (0, 1, 2) or any(flips)
            assert ("label-reoriented" in {one.rule for one in result.notices}) == is_reordered


def test_a_flipped_channel_is_no_label_and_stays_refused(tmp_path: Path) -> None:
    flipped = AFFINE @ np.array([[-1, 0, 0, 3.0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    files = (write(tmp_path / "a.nii", IMAGE), write(tmp_path / "b.nii", IMAGE[::-1], flipped))
    with pytest.raises(DataError, match=r"orientation LAS differs from RAS of a\.nii") as caught:
        check_image(files, ("T1", "T2"), 3, InputSpec())
    assert caught.value.problems[0].path == files[1]


def test_a_tilt_that_one_file_ignores_is_named(tmp_path: Path) -> None:
    angle = np.radians(20)
    tilted = np.array([[1, 0, 0, 0], [0, 1, -2 * np.sin(angle), 0], [0, 0, 2 * np.cos(angle), 0], [0, 0, 0, 1]])
    straight = np.diag([1, 1, 2 * np.cos(angle), 1])
    problem = only(problems(tmp_path, (IMAGE, tilted), (LABEL, straight)))
    assert problem.rule == "geometry-mismatch"
    assert "tilted by 0.0 degrees" in problem.message
    assert "by 20.0 (gantry tilt)" in problem.message
    np.testing.assert_array_equal(check(tmp_path, (IMAGE, tilted), (LABEL, tilted)).label, LABEL)


def test_files_that_state_no_place_match_by_shape_only_among_themselves(tmp_path: Path) -> None:
    image, label = tmp_path / "i.png", tmp_path / "l.png"
    Image.fromarray((IMAGE[0] % 255).astype(np.uint8)).save(image)
    Image.fromarray(LABEL[0]).save(label)
    spec = DataSpec(root="x", ndim=2)
    case = Case("case", (str(image),), str(label), "s")
    check_case(case, dataset_of(case), spec)
    case = Case("case", (str(image),), write(tmp_path / "l.nii", LABEL[0]), "s")
    assert "axes may be swapped" in only(problems_of(case, dataset_of(case), spec)).message


# --- EXIF ------------------------------------------------------------------------------------------------------------


def check_photo(tmp_path: Path, orientation: int, stored: np.ndarray, mask: np.ndarray, turned_mask: int = 1) -> Any:
    """Check a photograph with an EXIF orientation beside a mask, perhaps with one, too."""
    for name, array, tag in (("i.png", stored, orientation), ("l.png", mask, turned_mask)):
        exif = Image.Exif()
        exif[0x0112] = tag
        Image.fromarray(array).save(tmp_path / name, exif=exif)
    case = Case("case", (str(tmp_path / "i.png"),), str(tmp_path / "l.png"), "s")
    return check_case(case, dataset_of(case), DataSpec(root="x", ndim=2))


@pytest.mark.parametrize("orientation", [2, 3, 4, 5, 6, 7, 8])
def test_exif_on_one_of_a_pair_is_refused_where_nothing_shows_it_right(tmp_path: Path, orientation: int) -> None:
    square = np.arange(16, dtype=np.uint8).reshape(4, 4)
    with pytest.raises(DataError, match=f"EXIF orientation is {orientation}") as caught:
        check_photo(tmp_path, orientation, square, square % 3)
    assert [problem.rule for problem in caught.value.problems] == ["exif-orientation"]
    assert check_photo(tmp_path, orientation, square, square % 3, orientation).image.shape == (1, 4, 4)


@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
def test_exif_on_one_of_a_pair_is_clear_where_the_mask_has_the_upright_shape(tmp_path: Path, orientation: int) -> None:
    wide = np.arange(20, dtype=np.uint8).reshape(4, 5)
    upright = np.arange(20, dtype=np.uint8).reshape(5, 4) % 3
    np.testing.assert_array_equal(check_photo(tmp_path, orientation, wide, upright).label, upright)
    with pytest.raises(DataError, match="exif-orientation"):
        check_photo(tmp_path, orientation, wide, wide % 3)  # drawn on the pixels as stored


# --- axes and channels -----------------------------------------------------------------------------------------------


def test_several_channel_files_are_stacked(tmp_path: Path) -> None:
    files = tuple(write(tmp_path / f"{n}.nii", IMAGE + n) for n in range(2))
    case = Case("case", files, write(tmp_path / "l.nii", LABEL), "s")
    result = check_case(case, dataset_of(case, channels=("T1", "T2")), DataSpec(root="x"))
    np.testing.assert_array_equal(result.image, np.stack([IMAGE, IMAGE + 1]))


def test_declared_fourth_axis_becomes_channels(tmp_path: Path) -> None:
    both = np.stack([IMAGE, IMAGE * 2], axis=-1)
    result = check(tmp_path, both, channels=("T1", "T2"))
    np.testing.assert_array_equal(result.image, np.moveaxis(both, -1, 0))


def test_four_axes_where_three_are_due(tmp_path: Path) -> None:
    problem = only(problems(tmp_path, np.stack([IMAGE] * 2, axis=-1)))
    assert problem.rule == "wrong-ndim"
    assert "4-D [4, 5, 6, 2] where 3-D is expected" in problem.message


@pytest.mark.parametrize(("image", "label"), [(IMAGE[..., None], LABEL), (IMAGE, LABEL[..., None])])
def test_a_fourth_axis_of_one_is_none(tmp_path: Path, image: Any, label: Any) -> None:
    result = check(tmp_path, image, label)
    np.testing.assert_array_equal(result.image, IMAGE[None])
    np.testing.assert_array_equal(result.label, LABEL)


@pytest.mark.parametrize(("image", "label"), [(IMAGE[..., :1], LABEL[..., 0]), (IMAGE[..., 0], LABEL[..., :1])])
def test_one_slice_is_a_2d_image(tmp_path: Path, image: Any, label: Any) -> None:
    result = check(tmp_path, image, label, ndim=2)
    np.testing.assert_array_equal(result.image, IMAGE[None, ..., 0])
    np.testing.assert_array_equal(result.label, LABEL[..., 0])
    assert (result.geometry.shape, result.geometry.spacing) == ((4, 5), (1.0, 1.0))


def test_label_of_four_axes(tmp_path: Path) -> None:
    assert only(problems(tmp_path, label=np.stack([LABEL, LABEL], axis=-1))).rule == "label-channels"


def test_two_dimensional_file_where_three_are_due_and_the_reverse(tmp_path: Path) -> None:
    result = problems(tmp_path, IMAGE[0], LABEL[0])
    assert [problem.rule for problem in result] == ["wrong-ndim", "wrong-ndim"]
    assert "expected 3 spatial axes (data.ndim), the file has 2: [5, 6]" in result[0].message
    result = problems(tmp_path, ndim=2)
    assert {problem.rule for problem in result} == {"wrong-ndim"}


def test_colour_image_and_channel_count(tmp_path: Path) -> None:
    colours = np.random.default_rng(0).integers(0, 255, (5, 6, 3), np.uint8)
    Image.fromarray(colours).save(tmp_path / "i.png")
    Image.fromarray(LABEL[0]).save(tmp_path / "l.png")
    case = Case("case", (str(tmp_path / "i.png"),), str(tmp_path / "l.png"), "s")
    spec = DataSpec(root="x", ndim=2)
    result = check_case(case, dataset_of(case, channels=("red", "green", "blue")), spec)
    np.testing.assert_array_equal(result.image, np.moveaxis(colours, -1, 0))
    assert only(problems_of(case, dataset_of(case), spec)).rule == "channel-count"
    Image.fromarray(colours[..., 0]).save(tmp_path / "i.png")
    assert only(problems_of(case, dataset_of(case, channels=("r", "g", "b")), spec)).rule == "channel-count"
    Image.fromarray(colours).save(tmp_path / "l.png")
    assert only(problems_of(case, dataset_of(case), spec)).rule == "label-channels"


# --- voxel values ----------------------------------------------------------------------------------------------------


def test_nan_and_infinite_voxels_are_counted(tmp_path: Path) -> None:
    image = IMAGE.copy()
    image[0, 0, :3], image[1, 1, 1] = np.nan, np.inf
    problem = only(problems(tmp_path, image))
    assert (problem.rule, problem.message) == ("non-finite", "3 voxels are NaN and 1 infinite")


def test_constant_image(tmp_path: Path) -> None:
    problem = only(problems(tmp_path, np.full(SHAPE, 7, np.int16)))
    assert (problem.rule, problem.message) == ("constant-image", "every voxel has the same value, 7")
    zeros = np.zeros_like(IMAGE)
    result = check(tmp_path, np.stack([IMAGE, zeros], axis=-1), channels=("a", "b"))
    (constant,) = [one for one in result.notices if one.rule == "constant-channel"]
    assert (constant.case_id, constant.message) == ("case", "channel 1 (b): every voxel has the same value, 0")
    problem = only(problems(tmp_path, np.stack([zeros, zeros + 1], axis=-1), channels=("a", "b")))
    assert problem.rule == "constant-image"


def test_label_values_outside_the_declared(tmp_path: Path) -> None:
    label = LABEL.astype(np.int16)
    label[0, 0, :2], label[1, 1, 1] = 7, -1
    problem = only(problems(tmp_path, label=label))
    assert problem.rule == "label-values"
    assert "-1 (1 voxels), 7 (2 voxels); declared are 0 background, 1 organ1, 2 organ2" in problem.message
    assert "data.classes" in problem.remedy


@pytest.mark.parametrize("value", [-1, 3])
def test_label_just_outside_the_declared(tmp_path: Path, value: int) -> None:
    label = LABEL.astype(np.int16)
    label[0, 0, 0] = value
    assert f"{value} (1 voxels); declared are" in only(problems(tmp_path, label=label)).message


def test_black_and_white_mask(tmp_path: Path) -> None:
    problem = only(problems(tmp_path, label=(LABEL > 0).astype(np.uint8) * 255, num_classes=2))
    assert problem.rule == "label-values"
    assert "255 (80 voxels)" in problem.message
    assert "data.classes={background: 0, organ1: 255}" in problem.remedy


def test_values_become_numbers_of_classes_and_ignored_voxels_are_counted(tmp_path: Path) -> None:
    case, dataset, spec = write_case(tmp_path, None, np.array([0, 4, 255], np.uint8)[LABEL])
    labels = Labels(names=("background", "tumour"), values=((0,), (1, 4)), ignored=(255,))
    checked = check_case(case, replace(dataset, labels=labels), spec)
    np.testing.assert_array_equal(checked.label, LABEL)
    (ignored,) = [one for one in checked.notices if one.rule == "ignored-voxels"]
    assert "40 of 120 voxels (33.3%) are ignored" in ignored.message
    nothing = labels.model_copy(update={"ignored": ()})  # 255 is declared no more
    assert "255 (40 voxels)" in only(problems_of(case, replace(dataset, labels=nothing), spec)).message


def test_a_label_without_annotation_is_refused(tmp_path: Path) -> None:
    case, dataset, spec = write_case(tmp_path, None, np.full(SHAPE, 3, np.uint8))
    ignoring = dataset.labels.model_copy(update={"ignored": (3,)})
    assert only(problems_of(case, replace(dataset, labels=ignoring), spec)).rule == "nothing-annotated"


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P", "L", "1"])
def test_colours_are_classes(tmp_path: Path, mode: str) -> None:
    picture = np.zeros((5, 6, 3), np.uint8)
    picture[1:3] = 255
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (5, 6), np.uint8)).save(tmp_path / "i.png")
    Image.fromarray(picture).convert(mode).save(tmp_path / "l.png")
    case = Case("case", (str(tmp_path / "i.png"),), str(tmp_path / "l.png"), "s")
    labels = Labels(names=("background", "road"), values=((0,), (0xFFFFFF,)), is_colour=True)
    spec = DataSpec(root="x", ndim=2)
    checked = check_case(case, replace(dataset_of(case), labels=labels), spec)
    np.testing.assert_array_equal(checked.label, picture[..., 0] // 255)
    picture[0, :4] = 1, 2, 3
    Image.fromarray(picture).save(tmp_path / "l.png")
    problem = only(problems_of(case, replace(dataset_of(case), labels=labels), spec))
    assert (problem.rule, problem.path) == ("label-values", str(tmp_path / "l.png"))
    assert "#010203 (4 voxels); declared are #000000 background, #ffffff road" in problem.message


def test_label_with_fractions_or_nan(tmp_path: Path) -> None:
    label = LABEL.astype(np.float32)
    label[0, 0, :2], label[0, 0, 2] = 0.5, np.nan
    problem = only(problems(tmp_path, label=label))
    assert (problem.rule, problem.message) == ("label-not-integer", "3 voxels are not whole numbers")


@pytest.mark.parametrize(("distance", "is_refused"), [(6e-8, False), (9e-4, False), (2e-3, True), (0.5, True)])
def test_floats_near_whole_numbers_are_rounded_and_noticed(tmp_path: Path, distance: float, is_refused: bool) -> None:
    label = LABEL.astype(np.float32)
    label[0, 0, 1] -= distance  # of 1
    if is_refused:
        assert only(problems(tmp_path, label=label)).rule == "label-not-integer"
        return
    result = check(tmp_path, label=label)
    np.testing.assert_array_equal(result.label, LABEL)
    (rounded,) = [one for one in result.notices if one.rule == "label-rounded"]
    assert rounded.message.startswith("1 voxels are up to")


def test_labels_scaled_by_the_header_are_exact(tmp_path: Path) -> None:
    case, dataset, spec = write_case(tmp_path, None, LABEL.astype(np.int16) * 85)
    payload = bytearray(gzip.decompress(Path(case.label).read_bytes()))
    payload[112:120] = struct.pack("<ff", 1 / 85, 0.0)  # scl_slope and scl_inter, which nibabel would divide out
    Path(case.label).write_bytes(gzip.compress(bytes(payload)))
    np.testing.assert_array_equal(check_case(case, dataset, spec).label, LABEL)


def test_label_of_many_undeclared_values_stays_readable(tmp_path: Path) -> None:
    problem = only(problems(tmp_path, label=np.arange(120, dtype=np.uint8).reshape(SHAPE)))
    assert "and 107 more" in problem.message


def test_all_problems_of_a_case_are_listed(tmp_path: Path) -> None:
    image = IMAGE.copy()
    image[0, 0, 0] = np.nan
    result = problems(tmp_path, image, (LABEL + 9, np.diag([-1.0, 1, 2, 1])))
    assert [problem.rule for problem in result] == ["non-finite", "geometry-mismatch", "label-values"]


def test_unreadable_files_are_listed_beside_the_rest(tmp_path: Path) -> None:
    image, label = write(tmp_path / "i.nii.gz", IMAGE), write(tmp_path / "l.nii.gz", LABEL)
    Path(image).write_bytes(Path(image).read_bytes()[:-20])
    case = Case("case", (image,), label, "s")
    assert only(problems_of(case, dataset_of(case), DataSpec(root="x"))).rule == "truncated-gzip"
    result = problems_of(case, dataset_of(case), DataSpec(root="x", max_voxels=119))
    assert [(problem.rule, problem.case_id) for problem in result] == [("too-large", "case")] * 2


# --- the data set ----------------------------------------------------------------------------------------------------


def dataset_problems(dataset: Dataset, counts: dict[str, list[int]]) -> list[Problem]:
    with pytest.raises(DataError) as caught:
        check_dataset(dataset, counts)
    return list(caught.value.problems)


def test_class_that_no_case_has_and_too_few_cases() -> None:
    case = Case("a", ("a",), "labels/a", "a")
    dataset = dataset_of(case)
    check_dataset(dataset, {"a": [5, 0, 1], "b": [3, 2, 0]})
    (absent,) = dataset_problems(dataset, {"a": [5, 0, 1], "b": [3, 0, 0]})
    assert (absent.rule, absent.path) == ("absent-class", "labels")
    assert "no case has a voxel of class organ1; the classes are 0 background, 1 organ1" in absent.message
    assert [problem.rule for problem in dataset_problems(dataset, {"a": [5, 1, 1]})] == ["too-few-cases"]
    assert [problem.rule for problem in dataset_problems(dataset, {})] == ["too-few-cases"]
