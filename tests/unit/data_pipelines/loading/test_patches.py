"""Where training patches lie, and cutting them out of volumes of any size."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipelines.loading.patches import candidate_centres, choose_corner, cut, cut_mirrored

axis = st.tuples(st.integers(1, 12), st.integers(1, 9))  # voxels of the volume, voxels of the patch


@given(axes=st.lists(axis, min_size=2, max_size=3), lead=st.sampled_from([(), (1,), (2,)]), data=st.data())
@settings(deadline=None)
def test_cut_is_a_slice_of_the_padded_volume(
    axes: list[tuple[int, int]], lead: tuple[int, ...], data: st.DataObject
) -> None:
    shape, size = zip(*axes, strict=True)
    volume = np.random.default_rng(0).normal(size=(*lead, *shape)).astype(np.float32)
    corner = [data.draw(st.integers(1 - s, n - 1)) for n, s in axes]  # at least one voxel in common
    padded = np.pad(volume, [(0, 0)] * len(lead) + [(s, s) for s in size])
    reference = padded[(..., *(slice(c + s, c + 2 * s) for c, s in zip(corner, size, strict=True)))]
    patch = np.full((*lead, *size), np.nan, np.float32)
    cut(volume, corner, patch)
    np.testing.assert_array_equal(patch, reference)


@given(axes=st.lists(axis, min_size=2, max_size=3), seed=st.integers(0, 10_000))
@settings(deadline=None)
def test_patch_lies_inside_or_holds_the_volume_in_its_middle(axes: list[tuple[int, int]], seed: int) -> None:
    shape, size = zip(*axes, strict=True)
    for foreground in (None, np.zeros((0, 1 + len(axes)), np.int16)):
        corner = choose_corner(np.random.default_rng(seed), shape, size, foreground)
        for c, n, s in zip(corner, shape, size, strict=True):
            if s <= n:
                assert 0 <= c <= n - s
            else:
                before, after = -c, c + s - n
                assert abs(before - after) <= 1
                assert before + n + after == s


@given(axes=st.lists(axis, min_size=2, max_size=3), seed=st.integers(0, 10_000), data=st.data())
@settings(deadline=None)
def test_foreground_patch_holds_its_voxel(axes: list[tuple[int, int]], seed: int, data: st.DataObject) -> None:
    shape, size = zip(*axes, strict=True)
    voxel = [data.draw(st.integers(0, n - 1)) for n in shape]
    corner = choose_corner(np.random.default_rng(seed), shape, size, np.array([[1, *voxel]], np.int16))
    assert all(c <= v < c + s for c, v, s in zip(corner, voxel, size, strict=True))
    for c, v, n, s in zip(corner, voxel, shape, size, strict=True):
        if 0 < c < n - s:  # where the border leaves it free, the voxel is in the middle
            assert v - c == s // 2


def test_all_positions_come_up_equally_often() -> None:
    corners = Counter(choose_corner(np.random.default_rng(i), (5, 4), (3, 3), None) for i in range(1200))
    assert set(corners) == {(a, b) for a in range(3) for b in range(2)}
    assert all(130 < count < 270 for count in corners.values())  # 200 +- 5 standard deviations


@pytest.mark.parametrize(("is_forced", "classes"), [(True, {1, 3}), (False, {0})])
def test_patches_are_centred_on_foreground_where_forced_else_on_annotated_voxels(
    is_forced: bool, classes: set[int]
) -> None:
    voxels = np.array([[0, 4, 4], [0, 5, 5], [1, 5, 5], [3, 6, 6]], np.int32)
    assert set(candidate_centres(voxels, is_forced=is_forced)[:, 0]) == classes
    np.testing.assert_array_equal(candidate_centres(voxels[:2], is_forced=is_forced), voxels[:2])  # no foreground
    assert len(candidate_centres(voxels[2:], is_forced=False)) == 0  # nothing is ignored: anywhere


def test_a_rare_class_is_drawn_as_often_as_a_common_one() -> None:
    common = [[1, x, y] for x in range(10) for y in range(10)]
    foreground = np.array([*common, [4, 30, 30]], np.int16)
    rare = sum(choose_corner(np.random.default_rng(i), (40, 40), (1, 1), foreground) == (30, 30) for i in range(1000))
    assert 420 < rare < 580  # 500 +- 5 standard deviations


@given(axes=st.lists(axis, min_size=2, max_size=3), margin=st.integers(0, 15), data=st.data())
@settings(deadline=None)
def test_margins_are_mirrored_and_the_patch_itself_is_padded_with_zeros(
    axes: list[tuple[int, int]], margin: int, data: st.DataObject
) -> None:
    """As ``np.pad`` in two steps: zeros where a patch sticks out of the volume, then reflection."""
    shape, size = zip(*axes, strict=True)
    corner = [data.draw(st.integers(min(n - s, 0), max(n - s, 0))) for n, s in axes]
    volume = np.random.default_rng(0).normal(size=(2, *shape)).astype(np.float32)
    sides = [(max(-c, 0), max(c + s - n, 0)) for c, n, s in zip(corner, shape, size, strict=True)]
    reflected = np.pad(np.pad(volume, [(0, 0), *sides]), [(0, 0), *[(margin, margin)] * len(size)], mode="reflect")
    first = [c + before for c, (before, _) in zip(corner, sides, strict=True)]
    expected = reflected[(..., *(slice(c, c + s + 2 * margin) for c, s in zip(first, size, strict=True)))]
    patch = np.full(expected.shape, np.nan, np.float32)
    inner = [(c, c + s) for c, s in zip(corner, size, strict=True)]
    cut_mirrored(volume, [c - margin for c in corner], patch, inner)
    np.testing.assert_array_equal(patch, expected)
