"""Preprocessing: what it computes, and that label maps find the way back to the voxels they came from."""

from __future__ import annotations

import itertools

import nibabel as nib
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from scipy.spatial.transform import Rotation

from data_pipelines.errors import ConfigError, DataError
from data_pipelines.volumes.formats.base import Geometry
from data_pipelines.volumes.preprocess import (
    Preprocessing,
    StoredGeometry,
    canonical_axes,
    normalise,
    prepare,
    prepare_labels,
    resample,
    resample_labels,
    restore_mask,
)
from data_pipelines.volumes.specs import PreprocessSpec
from tests.support.logits import restored

RAW = PreprocessSpec(normalise="none")
ORIENTATIONS = [
    np.array(list(zip(axes, flips, strict=True)))
    for axes in itertools.permutations(range(3))
    for flips in itertools.product([1, -1], repeat=3)
]
"""nibabel's form: for each axis of the canonical array, the stored axis it becomes and its direction."""
CANONICAL = np.arange(4 * 5 * 6).reshape(4, 5, 6).astype(np.int16)
SPACING = (0.5, 1.5, 2.5)


def affine_of(degrees: float) -> np.ndarray:
    """Axes of ``SPACING``, turned by some degrees about an oblique axis."""
    affine = np.eye(4)
    affine[:3, :3] = Rotation.from_rotvec(np.deg2rad(degrees) * np.array([0.6, 0.0, 0.8])).as_matrix() * SPACING
    affine[:3, 3] = [-7, 11, 13]
    return affine


def stored_as(orientation: np.ndarray, canonical: np.ndarray, degrees: float = 20) -> tuple[np.ndarray, Geometry]:
    """The canonical array as another scanner would store it, by nibabel."""
    image = nib.Nifti1Image(canonical, affine_of(degrees)).as_reoriented(orientation)
    spacing = tuple(float(z) for z in np.linalg.norm(image.affine[:3, :3], axis=0))
    return np.asarray(image.dataobj), Geometry(image.shape, spacing, tuple(map(tuple, image.affine.tolist())))


def one_hot(labels: np.ndarray, num_classes: int) -> np.ndarray:
    """(K, *spatial) logits that say exactly ``labels``."""
    return (labels == np.arange(num_classes).reshape(-1, *[1] * labels.ndim)).astype(np.float32)


def blob(shape: tuple[int, ...]) -> np.ndarray:
    """Two half ellipsoids, labels 1 and 2, in the middle of the volume."""
    grids = np.meshgrid(*[(np.arange(n) + 0.5) / n * 2 - 1 for n in shape], indexing="ij")
    inside = sum(g**2 for g in grids) < 0.5
    return (inside.astype(np.uint8) * (1 + (grids[0] > 0))).astype(np.uint8)


def dice(a: np.ndarray, b: np.ndarray) -> float:
    return float(2 * (a & b).sum() / (a.sum() + b.sum()))


# --- Orientation -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("orientation", ORIENTATIONS, ids=lambda o: "".join(nib.orientations.ornt2axcodes(o)))
def test_labels_go_forth_and_back_from_every_orientation(orientation: np.ndarray) -> None:
    stored, geometry = stored_as(orientation, CANONICAL)
    prepared = prepare(stored[None], geometry, RAW, None, stored)
    np.testing.assert_array_equal(prepared.mask, CANONICAL)
    np.testing.assert_array_equal(prepared.image[0], CANONICAL)
    assert prepared.done.spacing == pytest.approx(SPACING)
    assert prepared.done.is_lossless
    assert prepared.image.flags.c_contiguous
    np.testing.assert_array_equal(restore_mask(CANONICAL, prepared.done), stored)
    np.testing.assert_array_equal(prepare_labels(stored, prepared.done), CANONICAL)
    back = restored(one_hot(CANONICAL % 3, 3), prepared.done)
    np.testing.assert_array_equal(back, stored % 3)
    assert back.dtype == np.uint8


def test_canonical_axes_of_a_known_affine() -> None:
    # Stored axes run left, superior, anterior.
    affine = ((-1.0, 0.0, 0.0, 0.0), (0.0, 0.0, 3.0, 0.0), (0.0, 2.0, 0.0, 0.0), (0.0, 0.0, 0.0, 1.0))
    assert canonical_axes(Geometry((4, 5, 6), (1.0, 2.0, 3.0), affine)) == ((0, 2, 1), (True, False, False))


@pytest.mark.parametrize("ndim", [2, 3])
def test_without_an_affine_axes_stay(ndim: int) -> None:
    image = np.arange(2 * 3**ndim).reshape(2, *[3] * ndim)
    prepared = prepare(image, Geometry((3,) * ndim, (1.0,) * ndim), RAW, None)
    np.testing.assert_array_equal(prepared.image, image)
    assert prepared.mask is None


# --- Crop ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("orientation", ORIENTATIONS[::7])
def test_cropped_labels_go_back_to_their_place(orientation: np.ndarray) -> None:
    canonical = np.full((8, 9, 7), -3, np.int16)
    canonical[2:5, 1:9, 3:6] = np.random.default_rng(0).integers(-2, 9, (3, 8, 3))
    canonical[[2, 4], [1, 8], [3, 5]] = 5
    stored, geometry = stored_as(orientation, canonical)
    labels = np.where(canonical > 3, 2, 0).astype(np.uint8)
    stored_labels, _ = stored_as(orientation, labels)
    spec = RAW.model_copy(update={"foreground_crop": True})
    prepared = prepare(stored[None], geometry, spec, None, stored_labels)
    assert prepared.done.crop == ((2, 5), (1, 9), (3, 6))
    np.testing.assert_array_equal(prepared.image[0], canonical[2:5, 1:9, 3:6])
    assert not prepared.done.is_lossless  # labels outside the box would be lost
    assert not prepared.done.is_resampled
    np.testing.assert_array_equal(restored(one_hot(labels[2:5, 1:9, 3:6], 3), prepared.done), stored_labels)
    np.testing.assert_array_equal(prepare_labels(stored_labels, prepared.done), labels[2:5, 1:9, 3:6])


def test_crop_keeps_what_any_channel_shows_and_all_of_an_empty_volume() -> None:
    image = np.zeros((2, 6, 6), np.float32)
    geometry = Geometry((6, 6), (1.0, 1.0))
    spec = RAW.model_copy(update={"foreground_crop": True})
    assert prepare(image, geometry, spec, None).done.crop == ((0, 6), (0, 6))
    image[0, 1, 2] = image[1, 4, 3] = 1
    assert prepare(image, geometry, spec, None).done.crop == ((1, 5), (2, 4))


def test_statistics_are_those_of_the_crop() -> None:
    image = np.zeros((1, 4, 4), np.float32)
    image[0, 1:3, 1:3] = [[1, 3], [1, 3]]
    spec = PreprocessSpec(foreground_crop=True)
    prepared = prepare(image, Geometry((4, 4), (1.0, 1.0)), spec, None)
    np.testing.assert_allclose(prepared.image[0], [[-1, 1], [-1, 1]], rtol=1e-6)


def skull_stripped(size: int, brain: int) -> np.ndarray:
    """(1, size, size) image of a brain of intensities 100 and 300 with a hole, in a background of -7."""
    image = np.full((1, size, size), -7.0, np.float32)
    start = (size - brain) // 2
    inner = image[0, start : start + brain, start : start + brain]
    inner[:] = 100 + 200 * (np.indices(inner.shape).sum(axis=0) % 2)
    inner[0, 0] = -7  # a corner outside, and a hole inside
    inner[2, 2] = -7
    return image


def test_after_a_large_crop_the_background_has_no_say_and_is_zero() -> None:
    spec = PreprocessSpec(foreground_crop=True)
    image = skull_stripped(12, 6)
    prepared = prepare(image, Geometry((12, 12), (1.0, 1.0)), spec, None)
    assert prepared.done.crop == ((3, 9), (3, 9))
    brain = np.array([*[100.0] * 16, *[300.0] * 18, -7.0])  # the hole counts
    expected = (image[0, 3:9, 3:9] - brain.mean()) / brain.std()
    expected[0, 0] = 0
    np.testing.assert_allclose(prepared.image[0], expected, rtol=1e-5)


def test_after_a_small_crop_every_voxel_counts() -> None:
    spec = PreprocessSpec(foreground_crop=True)
    image = skull_stripped(8, 7)
    prepared = prepare(image, Geometry((8, 8), (1.0, 1.0)), spec, None)
    cropped = image[0, 0:7, 0:7]
    np.testing.assert_allclose(prepared.image[0], (cropped - cropped.mean()) / cropped.std(), rtol=1e-5)


# --- Resampling ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "spacing", "target", "expected_shape", "expected_spacing"),
    [
        ((10, 8, 6), (1.5, 1.0, 2.0), (1.0, 1.0, 1.0), (15, 8, 12), (1.0, 1.0, 1.0)),
        ((7, 4, 4), (1.0, 1.0, 1.0), (2.0, 1.0, 1.0), (4, 4, 4), (1.75, 1.0, 1.0)),  # whole voxels: the extent stays
        ((3, 4, 1), (1.0, 1.0, 1.0), (1.0, 9.0, 5.0), (3, 1, 1), (1.0, 4.0, 1.0)),
    ],
)
def test_target_spacing_gives_shape_and_spacing(
    shape: tuple[int, ...],
    spacing: tuple[float, ...],
    target: tuple[float, ...],
    expected_shape: tuple[int, ...],
    expected_spacing: tuple[float, ...],
) -> None:
    prepared = prepare(np.ones((1, *shape)), Geometry(shape, spacing), RAW, target, np.ones(shape, np.uint8))
    assert prepared.mask is not None
    assert prepared.done.shape == prepared.mask.shape == prepared.image.shape[1:] == expected_shape
    assert prepared.done.spacing == pytest.approx(expected_spacing)
    assert prepared.done.is_resampled == (expected_shape != shape)
    assert (prepared.mask == 1).all()


@pytest.mark.parametrize("interpolation", ["nearest", "onehot"])
@pytest.mark.parametrize("orientation", ORIENTATIONS[::11])
def test_resampled_labels_come_back_nearly(orientation: np.ndarray, interpolation: str) -> None:
    canonical = blob((40, 30, 24))
    stored, geometry = stored_as(orientation, canonical)
    spec = RAW.model_copy(update={"label_interpolation": interpolation})
    prepared = prepare(stored[None], geometry, spec, (0.7, 1.1, 2.0), stored)
    assert prepared.mask is not None
    assert prepared.mask.shape == (29, 41, 30)
    assert not prepared.done.is_lossless
    back = restored(one_hot(prepared.mask, 3), prepared.done)
    assert back.shape == stored.shape
    for value in (1, 2):
        assert dice(back == value, stored == value) > 0.93


THICK = np.zeros((4, 4, 3), np.float32)
"""Three slices 5 mm apart, of which the middle one is bright in one half."""
THICK[:2, :, 1] = 8.0


@pytest.mark.parametrize("interpolation", ["linear", "spline"])
def test_thick_slices_are_resampled_one_by_one(interpolation: str) -> None:
    spec = PreprocessSpec.model_validate({"normalise": "none", "image_interpolation": interpolation})
    geometry = Geometry((4, 4, 3), (1.0, 1.0, 5.0))
    labels = (THICK > 0).astype(np.uint8)
    prepared = prepare(THICK[None], geometry, spec, (0.5, 0.5, 1.0), labels)
    assert prepared.done.coarse_axis == 2
    assert prepared.image.shape == (1, 8, 8, 15)
    for slice_number in range(15):
        alone = resample(THICK[:, :, slice_number // 5], (8, 8), {"linear": 1, "spline": 3}[interpolation])
        np.testing.assert_allclose(prepared.image[0, :, :, slice_number], alone, atol=1e-5)
    assert prepared.mask is not None
    np.testing.assert_array_equal(np.flatnonzero(prepared.mask.any(axis=(0, 1))), [5, 6, 7, 8, 9])
    logits = one_hot(prepared.mask, 2) - 0.5
    np.testing.assert_array_equal(restored(logits, prepared.done), labels)


def test_axes_are_told_apart_by_the_stored_spacing_in_canonical_order() -> None:
    affine = ((0.0, 0.0, 1.0, 0.0), (0.0, 1.0, 0.0, 0.0), (5.0, 0.0, 0.0, 0.0), (0.0, 0.0, 0.0, 1.0))
    done = prepare(np.zeros((1, 3, 4, 4)), Geometry((3, 4, 4), (5.0, 1.0, 1.0), affine), RAW, (1.0, 1.0, 1.0)).done
    assert done.coarse_axis == 2
    cubes = Geometry((6, 6, 6), (1.0, 1.0, 1.0))
    assert prepare(np.zeros((1, 6, 6, 6)), cubes, RAW, (1.0, 1.0, 6.0)).done.coarse_axis == 2
    assert prepare(np.zeros((1, 6, 6, 6)), cubes, RAW, (1.0, 1.0, 2.0)).done.coarse_axis is None


@pytest.mark.parametrize("shape", [(7, 9, 4), (3, 12, 5), (5, 6, 8)])
def test_linear_resampling_is_that_of_torch(shape: tuple[int, ...]) -> None:
    volume = np.random.default_rng(0).normal(size=(5, 6, 8)).astype(np.float32)
    expected = F.interpolate(torch.from_numpy(volume)[None, None], shape, mode="trilinear", align_corners=False)[0, 0]
    np.testing.assert_allclose(resample(volume, shape, order=1), expected, atol=1e-5)


def test_resampling_literals() -> None:
    ramp = np.array([0.0, 1.0, 2.0])
    np.testing.assert_allclose(resample(ramp, (6,), 1), [0, 0.25, 0.75, 1.25, 1.75, 2], atol=1e-6)
    np.testing.assert_allclose(resample(ramp, (1,), 1), [1], atol=1e-6)
    np.testing.assert_allclose(resample(np.full((4, 4), 3.0), (7, 3), 3), np.full((7, 3), 3.0), atol=1e-5)
    labels = np.array([7, 7, 0, 2], np.uint8)
    for interpolation in ("nearest", "onehot"):
        doubled = resample_labels(labels, (8,), interpolation)
        np.testing.assert_array_equal(doubled, [7, 7, 7, 7, 0, 0, 2, 2])
        assert doubled.dtype == np.uint8


@given(
    labels=npst.arrays(np.uint8, npst.array_shapes(min_dims=2, max_dims=3, max_side=6), elements=st.integers(0, 3)),
    data=st.data(),
)
@settings(max_examples=40, deadline=None)
def test_resampling_invents_no_labels(labels: np.ndarray, data: st.DataObject) -> None:
    shape = tuple(data.draw(st.integers(1, 9)) for _ in labels.shape)
    for interpolation in ("nearest", "onehot"):
        found = resample_labels(labels, shape, interpolation)
        assert found.shape == shape
        assert set(np.unique(found)) <= set(np.unique(labels))


def test_many_classes_need_wider_integers() -> None:
    done = prepare(np.zeros((1, 2, 2)), Geometry((2, 2), (1.0, 1.0)), RAW, None).done
    assert restore_mask(np.array([[0, 255], [1, 2]]), done).dtype == np.uint8
    wide = restore_mask(np.array([[0, 256], [1, 2]]), done)
    assert wide.dtype == np.int16
    assert wide[0, 1] == 256


def test_record_survives_json() -> None:
    stored, geometry = stored_as(ORIENTATIONS[29], CANONICAL)
    spec = RAW.model_copy(update={"foreground_crop": True})
    done = prepare(stored[None], geometry, spec, (1.0, 1.0, 1.0)).done
    assert Preprocessing.model_validate_json(done.model_dump_json()) == done


def test_stored_geometry_is_flat_json_of_the_preprocessing_and_the_affine() -> None:
    affine = ((-1.0, 0.0, 0.0, 4.0), (0.0, 1.0, 0.0, 0.0), (0.0, 0.0, 2.0, 0.5), (0.0, 0.0, 0.0, 1.0))
    geometry = Geometry((2, 3, 4), (1.0, 1.0, 2.0), affine)
    done = prepare(np.zeros((1, 2, 3, 4)), geometry, RAW, None).done
    part = StoredGeometry.of(geometry, done).to_bytes()
    assert part == (
        b'{"stored_shape": [2, 3, 4], "stored_spacing": [1.0, 1.0, 2.0], "axes": [0, 1, 2], '
        b'"flips": [true, false, false], "crop": [[0, 2], [0, 3], [0, 4]], "shape": [2, 3, 4], '
        b'"spacing": [1.0, 1.0, 2.0], "affine": [[-1.0, 0.0, 0.0, 4.0], [0.0, 1.0, 0.0, 0.0], '
        b"[0.0, 0.0, 2.0, 0.5], [0.0, 0.0, 0.0, 1.0]]}"
    )
    stored = StoredGeometry.model_validate_json(part)
    assert stored.geometry == geometry
    assert stored.is_lossless
    np.testing.assert_array_equal(restore_mask(np.ones((2, 3, 4)), stored), np.ones((2, 3, 4)))


def test_stored_geometry_of_an_image_has_no_affine() -> None:
    geometry = Geometry((2, 3), (1.0, 1.0))
    done = prepare(np.zeros((1, 2, 3)), geometry, RAW, None).done
    stored = StoredGeometry.model_validate_json(StoredGeometry.of(geometry, done).to_bytes())
    assert stored.affine is None
    assert stored.geometry == geometry


# --- Intensities -----------------------------------------------------------------------------------------------------


def test_zscore_literals() -> None:
    image = np.array([[[0, 2], [2, 0]], [[1_700_000, 1_700_004], [1_700_004, 1_700_000]]], np.float32)
    result = normalise(image, PreprocessSpec())
    np.testing.assert_allclose(result, [[[-1, 1], [1, -1]]] * 2, rtol=1e-6)
    assert result.dtype == np.float32


def test_zscore_of_a_constant_is_zero() -> None:
    assert (normalise(np.full((1, 3, 3), 5.0), PreprocessSpec()) == 0).all()


def test_window_literals() -> None:
    image = np.array([[-1000, -100, 0, 100, 300, 4000]], np.int16)
    result = normalise(image, PreprocessSpec(normalise="window", window=(-100, 300)))
    np.testing.assert_allclose(result, [[-1, -1, -0.5, 0, 1, 1]], atol=1e-6)
    assert result.dtype == np.float32


def test_none_only_changes_the_type() -> None:
    result = normalise(np.array([[1, 2]], np.uint8), RAW)
    np.testing.assert_array_equal(result, [[1, 2]])
    assert result.dtype == np.float32


def test_what_overflows_in_preprocessing_is_refused() -> None:
    image = np.full((1, 4, 4, 4), 3e38, np.float32)
    known = {"low": -3e38, "high": 3e38, "mean": 0, "std": 0.1}
    spec = PreprocessSpec.model_validate({"normalise": "intensities", "intensities": [known]})
    with np.errstate(over="ignore"), pytest.raises(DataError, match=r"(?s)non-finite.*case_7: .*after preprocessing"):
        prepare(image, Geometry((4, 4, 4), (1.0, 1.0, 1.0)), spec, None, name="case_7")


# --- Axes as stored, and normalisation per channel --------------------------------------------------------------------


def test_axes_may_stay_as_stored_in_another_order() -> None:
    stored, geometry = stored_as(ORIENTATIONS[29], CANONICAL)
    spec = RAW.model_copy(update={"orientation": "stored", "axes": (2, 0, 1)})
    prepared = prepare(stored[None], geometry, spec, None)
    np.testing.assert_array_equal(prepared.image[0], stored.transpose(2, 0, 1))
    np.testing.assert_array_equal(restore_mask(prepared.image[0], prepared.done), stored)
    canonical = prepare(stored[None], geometry, RAW.model_copy(update={"axes": (2, 1, 0)}), None)
    np.testing.assert_array_equal(canonical.image[0], CANONICAL.transpose(2, 1, 0))


def test_spacing_is_in_the_order_of_the_axes_and_may_be_each_cases_own() -> None:
    geometry = Geometry((4, 6, 8), (1.0, 2.0, 3.0))
    spec = RAW.model_copy(update={"orientation": "stored", "axes": (2, 1, 0)})
    done = prepare(np.zeros((1, 4, 6, 8)), geometry, spec, (None, 1.0, 2.0)).done
    assert done.shape == (8, 12, 2)
    assert done.spacing == (3.0, 1.0, 2.0)


def test_voxels_that_are_not_zero_are_kept() -> None:
    image = np.zeros((1, 5, 5), np.float32)
    image[0, 1:4, 2:4] = -3
    image[0, 4, 4] = 7
    nonzero, above = (RAW.model_copy(update={"foreground_crop": name}) for name in ("nonzero", True))
    assert prepare(image, Geometry((5, 5), (1.0, 1.0)), nonzero, None).done.crop == ((1, 5), (2, 5))
    assert prepare(image, Geometry((5, 5), (1.0, 1.0)), above, None).done.crop == ((0, 5), (0, 5))


def test_each_channel_is_normalised_in_its_own_way() -> None:
    """Range and mean of a data set, clipped; statistics within the foreground and its hole; all of the crop; none."""
    channel = np.array([[0, 0, 0, 0, 0], [0, 1, 2, 3, 0], [0, 2, 0, 2, 0], [0, 3, 2, 0, 0], [0, 0, 0, 0, 0]])
    known = {"low": 1.0, "high": 2.5, "mean": 2.0, "std": 0.5}
    spec = PreprocessSpec.model_validate(
        {
            "foreground_crop": "nonzero",
            "normalise": ["intensities", "zscore", "zscore", "none"],
            "masked": [False, True, False, False],
            "intensities": [known] * 4,
        }
    )
    found = prepare(np.stack([channel] * 4).astype(float), Geometry((5, 5), (1.0, 1.0)), spec, None).image
    crop = channel[1:4, 1:4]
    np.testing.assert_allclose(found[0], [[-2, 0, 1], [0, -2, 0], [1, 0, -2]])
    inside = crop.astype(float).ravel()[:8]  # all but the corner that is 0
    np.testing.assert_allclose(found[1].ravel()[:8], (inside - inside.mean()) / inside.std(), atol=1e-6)
    assert found[1, 2, 2] == 0
    np.testing.assert_allclose(found[2], (crop - crop.mean()) / crop.std(), atol=1e-6)
    np.testing.assert_array_equal(found[3], crop)


@pytest.mark.parametrize("name", ["normalise", "masked", "intensities"])
def test_settings_per_channel_are_of_all_channels(name: str) -> None:
    fields = {"normalise": ["intensities"], "intensities": [{"low": 0, "high": 1, "mean": 0, "std": 1}]}
    fields |= {"masked": [True], "foreground_crop": True}
    fields[name] = [*fields[name], *fields[name]]
    spec = PreprocessSpec.model_validate(fields)
    with pytest.raises(ConfigError, match=f"preprocess.{name} has 2 entries for 1 channels"):
        normalise(np.zeros((1, 2, 2)), spec)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"normalise": "intensities"}, "go together"),
        ({"intensities": [{"low": 0, "high": 1, "mean": 0, "std": 1}]}, "go together"),
        ({"intensities": [{"low": 1, "high": 1, "mean": 0, "std": 1}]}, "low must be below high, got 1"),
        ({"intensities": [{"low": 0, "high": 1, "mean": 0, "std": 0}]}, "greater than 0"),
        ({"masked": [True]}, "foreground is known with foreground_crop alone"),
        ({"axes": [0, 2, 2]}, "name each axis once"),
        ({"axes": [2, 1, 0], "spacing": "median"}, "known along canonical axes"),
        ({"spacing": [1.0, None, -1.0]}, "must be positive"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PreprocessSpec.model_validate(fields)


def test_splines_stay_within_the_values_of_the_image() -> None:
    edge = np.repeat([[0.0, 1.0]], 6, axis=0).repeat(3, axis=1)
    found = resample(edge, (12, 13), order=3)
    assert (found.min(), found.max()) == (0, 1)


def test_an_image_that_would_grow_beyond_the_limit_is_refused() -> None:
    image, geometry = np.zeros((1, 4, 5, 6), np.float32), Geometry((4, 5, 6), (10.0, 10.0, 25.0))
    done = prepare(image, geometry, RAW, (1.0, None, 5.0), max_voxels=40 * 5 * 30).done
    assert done.shape == (40, 5, 30)
    with pytest.raises(
        DataError, match=r"a\.nii: resampled from 10 x 10 x 25 to 1 x own x 5 mm it would have 40 x 5 x 30"
    ):
        prepare(image, geometry, RAW, (1.0, None, 5.0), name="a.nii", max_voxels=40 * 5 * 30 - 1)
