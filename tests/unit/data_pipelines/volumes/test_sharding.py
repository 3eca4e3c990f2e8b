"""Sharding volumes: what a task carries, what a sample holds, and that every problem of a shard is named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest

from data_pipelines.shards.index import ANNOTATED, FOREGROUND, GEOMETRY, IMAGE, MASK, TRUTH, build_index
from data_pipelines.shards.reader import ShardReader
from data_pipelines.volumes import sharding
from data_pipelines.volumes.formats.nifti import write_nifti
from data_pipelines.volumes.preprocess import StoredGeometry
from data_pipelines.volumes.sharding import (
    Work,
    foreground_voxels,
    read_notices,
    sample_digests,
    shard_one,
    shards_folder,
    target_spacing,
)
from data_pipelines.volumes.sources.find import find_cases
from data_pipelines.volumes.specs import DataSpec, PreprocessSpec
from tests.support.datasets import AFFINE, FAULTS, image_of, image_path, label_of, write, write_dataset


def work_of(tmp_path: Path, spacing: tuple[float, ...] | None = None, ndim: Literal[2, 3] = 3) -> Work:
    """Every case of ``tmp_path/raw`` in one shard, having travelled as JSON."""
    spec = DataSpec(root=str(tmp_path / "raw"), ndim=ndim, preprocess=PreprocessSpec(normalise="none"))
    dataset = find_cases(spec)
    digests = tuple(f"digest of {case.case_id}" for case in dataset.cases)
    uri = str(tmp_path / "shard.tar")
    work = Work(uri=uri, cases=dataset.cases, digests=digests, dataset=dataset, spec=spec, spacing=spacing)
    arrived = Work.model_validate_json(work.model_dump_json())
    assert arrived == work
    return arrived


def test_a_sample_holds_image_mask_foreground_and_geometry(tmp_path: Path) -> None:
    write_dataset(tmp_path / "raw", "a", "b")
    rows, problems = shard_one(work_of(tmp_path))
    assert problems == []
    assert [(row["case_id"], row["digest"], row["shape"]) for row in rows] == [
        ("a", "digest of a", [12, 12, 12]),
        ("b", "digest of b", [12, 12, 12]),
    ]
    assert rows[0]["class_voxels"] == np.bincount(label_of().ravel()).tolist()
    reader = ShardReader(build_index(rows, {"a": "train", "b": "val"}), str(tmp_path))
    np.testing.assert_array_equal(reader.array(1, IMAGE), image_of("b")[None])
    np.testing.assert_array_equal(reader.array(1, MASK), label_of())
    assert not reader.has(1, TRUTH)  # nothing was resampled
    for value, *voxel in reader.array(1, FOREGROUND):
        assert label_of()[tuple(voxel)] == value
    geometry = StoredGeometry.model_validate_json(bytes(reader.read(1, GEOMETRY)))
    np.testing.assert_array_equal(geometry.geometry.affine_array(), AFFINE)


def test_a_resampled_sample_keeps_the_label_as_stored(tmp_path: Path) -> None:
    write_dataset(tmp_path / "raw", "a", "b")
    rows, _ = shard_one(work_of(tmp_path, (2.0, 2.0, 2.0)))
    assert rows[0]["shape"] == [6, 6, 12]
    reader = ShardReader(build_index(rows, {"a": "train"}), str(tmp_path))
    np.testing.assert_array_equal(reader.array(0, TRUTH), label_of())


def test_a_class_that_preprocessing_removes_is_noticed(tmp_path: Path) -> None:
    root = write_dataset(tmp_path / "raw", "a", "b")
    label = label_of()
    label[label == 2] = 1
    label[6, 6, 6] = 2
    write_nifti(root / "labelsTr" / "a.nii.gz", label, AFFINE)
    (a, b), _ = shard_one(work_of(tmp_path, (3.0, 3.0, 6.0)))
    (vanished,) = [one for one in read_notices([a]) if one.rule == "vanished-class"]
    assert vanished.case_id == "a"
    assert "(2) has 1 voxels, and none after preprocessing" in vanished.message
    assert "vanished-class" not in {one.rule for one in read_notices([b])}
    finely, _ = shard_one(work_of(tmp_path))
    assert "vanished-class" not in {one.rule for one in read_notices(finely)}


@pytest.mark.parametrize("shape", [(12, 10), (12, 10, 1)])
def test_two_dimensional_nifti_is_sharded_with_its_geometry(tmp_path: Path, shape: tuple[int, ...]) -> None:
    root = write_dataset(tmp_path / "raw")
    affine = np.array([[0, -0.5, 0, 3], [0.25, 0, 0, 4], [0, 0, 1, 5], [0, 0, 0, 1]])
    for case_id in "ab":
        write_nifti(root / "imagesTr" / f"{case_id}_0000.nii.gz", np.arange(120.0).reshape(shape), affine)
        write_nifti(root / "labelsTr" / f"{case_id}.nii.gz", np.arange(120).reshape(shape) % 3, affine)
    rows, problems = shard_one(work_of(tmp_path, ndim=2))
    assert problems == []
    assert [(row["shape"], row["spacing"]) for row in rows] == [([12, 10], [0.25, 0.5])] * 2
    reader = ShardReader(build_index(rows, {"a": "train", "b": "val"}), str(tmp_path))
    geometry = StoredGeometry.model_validate_json(bytes(reader.read(0, GEOMETRY)))
    np.testing.assert_allclose(geometry.geometry.affine_array(), affine)


def test_bad_cases_are_named_and_the_others_sharded(tmp_path: Path) -> None:
    root = write_dataset(tmp_path / "raw", "good")
    for name in ("nan", "fractions", "truncated"):
        FAULTS[name](root, f"bad_{name}")
    rows, problems = shard_one(work_of(tmp_path))
    assert [row["case_id"] for row in rows] == ["good"]
    assert {(problem.case_id, problem.rule) for problem in problems} == {
        ("bad_nan", "non-finite"),
        ("bad_fractions", "label-not-integer"),
        ("bad_truncated", "truncated-gzip"),
    }


def test_foreground_is_drawn_from_each_class(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sharding, "NUM_FOREGROUND_VOXELS", 10)
    mask = np.zeros((8, 8), np.uint8)
    mask[:4], mask[7, 7] = 1, 3
    voxels = foreground_voxels(mask, 4)
    assert voxels.dtype == np.int32
    classes, counts = np.unique(voxels[:, 0], return_counts=True)
    assert dict(zip(classes.tolist(), counts.tolist(), strict=True)) == {1: 10, 3: 1}
    assert all(mask[x, y] == value for value, x, y in voxels)
    assert len(np.unique(voxels, axis=0)) == 11
    assert voxels[-1].tolist() == [3, 7, 7]
    np.testing.assert_array_equal(voxels, foreground_voxels(mask.copy(), 4))  # a function of the mask
    assert foreground_voxels(np.zeros((2, 3, 4), np.uint8), 4).shape == (0, 4)


def test_where_voxels_are_ignored_annotated_ones_are_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sharding, "NUM_FOREGROUND_VOXELS", 3)
    mask = np.full((4, 4), 2, np.uint8)  # of two classes: ignored
    mask[0], mask[1, 0] = 0, 1
    voxels = foreground_voxels(mask, 2)
    assert (voxels[:, 0] == ANNOTATED).sum() == 3
    assert voxels[-1].tolist() == [1, 1, 0]
    assert all(mask[x, y] < 2 for _, x, y in voxels)


def test_foreground_of_a_regular_structure_is_drawn_evenly() -> None:
    mask = np.ones((100, 100), np.uint8)  # every fifth voxel in raster order would be every fifth column
    columns = np.bincount(foreground_voxels(mask, 4)[:, 2], minlength=100)
    assert columns.sum() == sharding.NUM_FOREGROUND_VOXELS
    assert columns.min() > 0
    assert columns.max() < 45  # 20 +- 5 standard deviations


def test_foreground_beyond_the_range_of_int16() -> None:
    mask = np.zeros((3, 40_000), np.uint8)
    mask[1, 36_000:36_002] = 2
    assert foreground_voxels(mask, 4).tolist() == [[2, 1, 36_000], [2, 1, 36_001]]


def test_what_shapes_a_sample_is_in_its_digest_and_its_folder(tmp_path: Path) -> None:
    spec = DataSpec(root=str(write_dataset(tmp_path / "raw", "a", "b")))
    dataset = find_cases(spec)
    (digests, unreadable), folder = sample_digests(dataset, spec, None), shards_folder(dataset, spec, None)
    assert unreadable == []
    assert len(set(digests.values())) == 2
    for other, spacing in [
        (spec.model_copy(update={"preprocess": PreprocessSpec(foreground_crop=True)}), None),
        (spec.model_copy(update={"ndim": 2}), None),
        (spec, (1.0, 1.0, 1.0)),
    ]:
        assert not set(digests.values()) & set(sample_digests(dataset, other, spacing)[0].values())
        assert shards_folder(dataset, other, spacing) != folder
    stricter = spec.model_copy(update={"grid_tolerance": 0.01})
    assert sample_digests(dataset, stricter, None)[0] == digests, "a sample stays the same"
    assert shards_folder(dataset, stricter, None) != folder, "but it is checked again"
    elsewhere = spec.model_copy(update={"on_error": "quarantine", "fold": 3, "shard_megabytes": 1})
    assert sample_digests(dataset, elsewhere, None)[0] == digests
    assert shards_folder(dataset, elsewhere, None) == folder


def test_values_of_classes_shape_samples_and_regions_do_not(tmp_path: Path) -> None:
    spec = DataSpec(root=str(write_dataset(tmp_path / "raw", "a")))
    folders = [
        shards_folder(find_cases(spec.model_copy(update=update)), spec, None)
        for update in (
            {},
            {"regions": {"whole": ("front", "back"), "back": ("back",)}},
            {"classes": {"background": 0, "front": 1, "back": (2, 3)}},
            {"classes": {"background": 0, "front": 1, "back": 2, "ignore": 3}},
        )
    ]
    assert folders[0] == folders[1]
    assert len(set(folders)) == 3


def test_median_spacing_skips_what_cannot_be_read(tmp_path: Path) -> None:
    root = write_dataset(tmp_path / "raw", "a", "b")
    FAULTS["zero_spacing"](root, "bad")
    spec = DataSpec(root=str(root), preprocess=PreprocessSpec(spacing="median"))
    assert target_spacing(find_cases(spec), spec) == (1.0, 1.0, 2.0)
    fixed = spec.model_copy(update={"preprocess": PreprocessSpec(spacing=(3.0, 3.0, 3.0))})
    assert target_spacing(find_cases(fixed), fixed) == (3.0, 3.0, 3.0)


def test_a_common_spacing_is_kept_to_the_digit(tmp_path: Path) -> None:
    root = write_dataset(tmp_path / "raw", "a", "b")
    for case_id in ("a", "b"):
        write(image_path(root, case_id), image_of(case_id), np.diag([1.25, 1.25, 2.625, 1.0]))
    spec = DataSpec(root=str(root), preprocess=PreprocessSpec(spacing="median"))
    assert target_spacing(find_cases(spec), spec) == (1.25, 1.25, 2.625)


@pytest.mark.parametrize("spacing", ["median", (1.0, 1.5)])
def test_slices_with_a_third_axis_are_images(tmp_path: Path, spacing: Any) -> None:
    """As programs store a slice as NIfTI: (x, y, 1)."""
    rng = np.random.default_rng(0)
    for folder in ("images", "masks"):
        (tmp_path / "raw" / folder).mkdir(parents=True)
    for index in range(2):
        image = rng.integers(0, 200, (12, 10, 1)).astype(np.uint8)
        write_nifti(tmp_path / "raw" / "images" / f"{index}.nii", image, np.diag([1.0, 1.5, 5.0, 1.0]))
        write_nifti(tmp_path / "raw" / "masks" / f"{index}.nii", image // 100, np.diag([1.0, 1.5, 5.0, 1.0]))
    (tmp_path / "raw" / "classes.json").write_text(json.dumps({"background": 0, "organ": 1}))
    spec = DataSpec(root=str(tmp_path / "raw"), ndim=2, preprocess=PreprocessSpec(spacing=spacing))
    dataset = find_cases(spec)
    assert sharding.target_spacing(dataset, spec) == (1.0, 1.5)
    assert sharding._expected_megabytes(dataset.cases[0], dataset, spec, (1.0, 1.5)) == pytest.approx(600e-6)


@pytest.mark.parametrize("spacing", ["median", (1.0, 1.0, 2.0)])
def test_a_case_of_another_dimension_is_planned_for_and_named(tmp_path: Path, spacing: Any) -> None:
    root = write_dataset(tmp_path / "raw", "a", "b")
    write(image_path(root, "b"), image_of("b")[:, :, 0])
    spec = DataSpec(root=str(root), preprocess=PreprocessSpec(spacing=spacing))
    dataset = find_cases(spec)
    assert target_spacing(dataset, spec) == (1.0, 1.0, 2.0)
    assert sharding._expected_megabytes(dataset.cases[1], dataset, spec, (1.0, 1.0, 2.0)) == 0.0
    _, problems = shard_one(work_of(tmp_path, (1.0, 1.0, 2.0)))
    assert {(problem.case_id, problem.rule) for problem in problems} >= {("b", "wrong-ndim")}


def test_values_that_overflow_and_classes_that_vanish_name_a_file(tmp_path: Path) -> None:
    root = write_dataset(tmp_path / "raw", "a")
    image, label = image_of("a").astype(np.float32), np.zeros((12, 12, 12), np.uint8)
    label[6, 6, 6] = 2
    write_nifti(root / "labelsTr" / "a.nii.gz", label, AFFINE)
    (row,), _ = shard_one(work_of(tmp_path, (3.0, 3.0, 6.0)))
    assert [one.path for one in read_notices([row]) if one.rule == "vanished-class"] == [str(image_path(root, "a"))]
    image[0] = 3e38
    write(image_path(root, "a"), image)
    known = {"low": -3e38, "high": 3e38, "mean": 0, "std": 0.1}
    overflowing = PreprocessSpec.model_validate({"normalise": "intensities", "intensities": [known]})
    work = work_of(tmp_path)
    spec = work.spec.model_copy(update={"preprocess": overflowing})
    with np.errstate(over="ignore"):
        _, (problem,) = shard_one(work.model_copy(update={"spec": spec}))
    assert (problem.rule, problem.path, problem.case_id) == ("non-finite", str(image_path(root, "a")), "a")
