"""Statistics of cases and their fingerprint, against numpy on the pooled voxels and against closed forms."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nibabel.orientations import apply_orientation, axcodes2ornt, inv_ornt_aff, ornt_transform

from data_pipelines.volumes.checks import CheckedCase
from data_pipelines.volumes.fingerprint import (
    PROBABILITIES,
    CaseStatistics,
    Fingerprint,
    case_statistics,
    merge_statistics,
    pooled_quantiles,
    ras_axes,
)
from data_pipelines.volumes.formats.base import Geometry

CLASSES = {"background": 0, "liver": 1, "lesion": 2}


def checked(image: np.ndarray, label: np.ndarray, affine: np.ndarray, case_id: str = "a") -> CheckedCase:
    spacing = tuple(np.linalg.norm(affine[:3, :3], axis=0).tolist())
    geometry = Geometry(label.shape, spacing, tuple(map(tuple, affine.tolist())))
    return CheckedCase(case_id, case_id, image, label, geometry)


def random_case(seed: int, shape: tuple[int, ...] = (4, 5, 6), channels: int = 2) -> CheckedCase:
    rng = np.random.default_rng(seed)
    image = rng.normal(100 * (seed + 1), 10 + seed, (channels, *shape)).astype(np.float32)
    return checked(image, rng.integers(0, 3, shape).astype(np.uint8), np.diag([1.0, 1.0, 2.0, 1.0]), f"case_{seed}")


def test_statistics_of_one_case() -> None:
    image = np.arange(8, dtype=np.float32).reshape(1, 2, 2, 2)
    label = np.array([0, 0, 0, 1, 1, 0, 2, 2], dtype=np.uint8).reshape(2, 2, 2)  # foreground intensities 3, 4, 6, 7
    statistics = case_statistics(checked(image, label, np.diag([1.0, 1.5, 2.0, 1.0])), 3)
    (channel,) = statistics.channels
    assert (channel.mean, channel.min, channel.max, channel.percentile_50_0) == (5.0, 3.0, 7.0, 5.0)
    assert channel.std == pytest.approx(2.5**0.5)
    assert channel.percentile_00_5 == pytest.approx(3.015)  # 0.5 % of the way from 3 to 7 in rank: 3 + 0.015 * 1
    assert channel.percentile_99_5 == pytest.approx(6.985)
    assert statistics.voxels_per_class == (4, 2, 2)
    assert (statistics.shape, statistics.spacing) == ((2, 2, 2), (1.0, 1.5, 2.0))


def test_case_without_foreground_uses_the_whole_image() -> None:
    image = np.arange(8, dtype=np.float32).reshape(1, 2, 2, 2)
    statistics = case_statistics(checked(image, np.zeros((2, 2, 2), np.uint8), np.eye(4)), 3)
    assert statistics.channels[0].mean == 3.5
    assert statistics.voxels_per_class == (8, 0, 0)


def test_large_intensities_keep_their_digits() -> None:
    image = np.full((1, 64, 64, 16), 1.7e6, dtype=np.float32)
    image[:, ::2] += 1.0
    channel = case_statistics(checked(image, np.ones((64, 64, 16), np.uint8), np.eye(4)), 3).channels[0]
    assert channel.mean == pytest.approx(1.7e6 + 0.5, abs=1e-6)
    assert channel.std == pytest.approx(0.5, abs=1e-6)


@pytest.mark.parametrize("codes", ["RAS", "LPS", "PIR", "SLA", "ASL"])
def test_statistics_do_not_depend_on_stored_orientation(codes: str) -> None:
    case = random_case(0)
    change = ornt_transform(axcodes2ornt("RAS"), axcodes2ornt(codes))
    image = np.stack([apply_orientation(channel, change) for channel in case.image])
    affine = case.geometry.affine_array() @ inv_ornt_aff(change, case.label.shape)
    moved = checked(image, apply_orientation(case.label, change), affine, case.case_id)
    expected = case_statistics(case, 3)
    found = case_statistics(moved, 3)
    assert (found.shape, found.spacing) == ((4, 5, 6), (1.0, 1.0, 2.0))
    assert found.voxels_per_class == expected.voxels_per_class
    assert found.channels[0].mean == pytest.approx(expected.channels[0].mean)


def test_two_dimensions_keep_their_axes() -> None:
    assert ras_axes(Geometry((3, 4), (1.0, 1.0))) == (0, 1)


@settings(max_examples=20, deadline=None)
@given(seeds=st.lists(st.integers(0, 9), min_size=1, max_size=4, unique=True))
def test_merged_moments_are_those_of_all_voxels(seeds: list[int]) -> None:
    cases = [random_case(seed, shape=(3, 4, 3 + seed)) for seed in seeds]
    fingerprint = merge_statistics([case_statistics(case, 3) for case in cases], CLASSES, ("T1", "T2"))
    for index, channel in enumerate(fingerprint.channels):
        voxels = np.concatenate([case.image[index][case.label > 0] for case in cases]).astype(np.float64)
        assert channel.mean == pytest.approx(voxels.mean())
        assert channel.std == pytest.approx(voxels.std())
        assert (channel.min, channel.max) == (voxels.min(), voxels.max())
    labels = np.concatenate([case.label.ravel() for case in cases])
    assert list(fingerprint.voxels_per_class.values()) == np.bincount(labels, minlength=3).tolist()


def test_merged_percentiles_are_those_of_all_voxels() -> None:
    """Of two scans with contrast medium and one without, ten times as large: medians over the cases would be wrong."""
    rng = np.random.default_rng(0)
    images = [
        rng.normal(mean, 15, (1, 12, 12, size)).astype(np.float32) for mean, size in [(160, 9), (140, 9), (40, 180)]
    ]
    label = [np.ones(image.shape[1:], np.uint8) for image in images]
    cases = [checked(*each, np.eye(4), "a") for each in zip(images, label, strict=True)]
    fingerprint = merge_statistics([case_statistics(case, 2) for case in cases], {"background": 0, "a": 1}, ("CT",))
    channel = fingerprint.channels[0]
    voxels = np.concatenate([image.ravel() for image in images])
    expected = np.percentile(voxels, (0.5, 50, 99.5))
    found = (channel.percentile_00_5, channel.percentile_50_0, channel.percentile_99_5)
    assert found == pytest.approx(expected, abs=0.02 * np.ptp(expected))
    assert channel.quantiles == pytest.approx(np.quantile(voxels, PROBABILITIES), abs=0.02 * np.ptp(expected))
    old = [each.model_copy(update={"quantiles": ()}) for case in cases for each in case_statistics(case, 2).channels]
    rough = pooled_quantiles(old, np.array([9.0, 9.0, 180.0]))
    assert rough == pytest.approx(np.quantile(voxels, PROBABILITIES), abs=0.3 * np.ptp(expected))


def test_ignored_voxels_are_no_class() -> None:
    label = np.array([[[0, 1], [2, 2]]], np.uint8)  # of two classes: 2 is ignored
    case = checked(np.array([[[[1.0, 5.0], [90.0, 90.0]]]], np.float32), label, np.eye(4), "a")
    found = case_statistics(case, 2)
    assert (found.voxels_per_class, found.num_ignored, found.channels[0].max) == ((1, 1), 2, 5.0)
    fingerprint = merge_statistics([found, found], {"background": 0, "a": 1}, ("MR",))
    assert (fingerprint.num_ignored, fingerprint.class_frequencies) == (4, {"background": 0.5, "a": 0.5})


def test_merged_shapes_spacings_and_classes() -> None:
    def statistics(case_id: str, depth: int, spacing: float, voxels: tuple[int, ...]) -> CaseStatistics:
        base = case_statistics(random_case(0, channels=1), 3)
        update = {"case_id": case_id, "shape": (4, 5, depth), "spacing": (1.0, 1.0, spacing)}
        return base.model_copy(update=update | {"voxels_per_class": voxels})

    cases = [
        statistics("a", 6, 2.0, (90, 10, 0)),
        statistics("b", 8, 3.0, (60, 30, 10)),
        statistics("c", 7, 5.0, (100, 0, 0)),
    ]
    fingerprint = merge_statistics(cases, CLASSES, ("T1",))
    assert fingerprint.num_cases == 3
    assert fingerprint.median_shape == (4.0, 5.0, 7.0)
    assert (fingerprint.min_shape, fingerprint.max_shape) == ((4, 5, 6), (4, 5, 8))
    assert fingerprint.median_spacing == (1.0, 1.0, 3.0)
    assert (fingerprint.min_spacing[2], fingerprint.max_spacing[2]) == (2.0, 5.0)
    assert fingerprint.voxels_per_class == {"background": 250, "liver": 40, "lesion": 10}
    assert fingerprint.cases_per_class == {"background": 3, "liver": 2, "lesion": 1}
    assert fingerprint.class_frequencies["liver"] == pytest.approx(40 / 300)
    assert sum(fingerprint.class_frequencies.values()) == pytest.approx(1)


def test_cases_without_foreground_do_not_move_the_intensities() -> None:
    with_foreground = case_statistics(random_case(0), 3)
    empty = random_case(5)
    empty.label[:] = 0
    both = merge_statistics([with_foreground, case_statistics(empty, 3)], CLASSES, ("T1", "T2"))
    assert both.channels == with_foreground.channels
    alone = merge_statistics([case_statistics(empty, 3)], CLASSES, ("T1", "T2"))
    assert alone.channels[0].mean == pytest.approx(empty.image[0].mean(), rel=1e-5)


def test_records_survive_json_and_an_empty_set_is_refused() -> None:
    statistics = case_statistics(random_case(1), 3)
    fingerprint = merge_statistics([statistics], CLASSES, ("T1", "T2"))
    assert CaseStatistics.model_validate_json(statistics.model_dump_json()) == statistics
    assert Fingerprint.model_validate_json(fingerprint.model_dump_json()) == fingerprint
    with pytest.raises(ValueError, match="at least one case"):
        merge_statistics([], CLASSES, ("T1",))
