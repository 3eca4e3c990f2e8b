"""Augmentation: addressed by (seed, step, position), each change as its formula says, image and mask together."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import Tensor

from data_pipelines.random_streams import Stream, numpy_generator
from unet_models.specs.segmentation import AugmentSpec, TrainSpec
from unet_models.training import augment as module
from unet_models.training.augment import AugmentParameters, augment, draw_parameters
from unet_models.training.distort import DISTORTIONS, Distortion, distort_labels

NOTHING = AugmentSpec.nothing()
EVERYTHING = AugmentSpec(
    **{name: None if name == "mirror_axes" else 1.0 for name in NOTHING.model_dump() if name[0] in "pm"}
)
SIZES = {2: ((9, 15), 2), 3: ((7, 11, 16), 3)}
"""Patch sizes whose axes differ, and a margin read around them."""


def with_only(**fields: Any) -> AugmentSpec:
    return NOTHING.model_copy(update=fields)


def random_batch(batch: int, size: tuple[int, ...], channels: int = 2) -> tuple[Tensor, Tensor]:
    source = torch.Generator().manual_seed(0)
    images = torch.randn(batch, channels, *size, generator=source)
    return images, torch.randint(4, (batch, *size), generator=source).to(torch.uint8)


def run(images: Tensor, spec: AugmentSpec, masks: Tensor | None = None, **address: Any) -> tuple[Tensor, Tensor]:
    """Augment with positions counted from 0 and the whole of what was read kept, unless said otherwise."""
    masks = torch.zeros(images[:, 0].shape, dtype=torch.uint8) if masks is None else masks
    patch_size = address.get("patch_size", tuple(images.shape[2:]))
    positions = address.get("positions", range(len(images)))
    return augment(images, masks, list(positions), address.get("step", 3), address.get("seed", 5), patch_size, spec)


def drawn(position: int, spec: AugmentSpec, ndim: int, step: int = 3, seed: int = 5) -> AugmentParameters:
    return draw_parameters(numpy_generator(seed, Stream.AUGMENTATION, step, position), spec, ndim)


def read_size(ndim: int) -> tuple[int, ...]:
    size, margin = SIZES[ndim]
    return tuple(n + 2 * margin for n in size)


# --- Addresses -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ndim", [2, 3])
def test_a_sample_is_changed_alike_in_any_company(ndim: int) -> None:
    images, masks = random_batch(4, read_size(ndim))
    address = {"patch_size": SIZES[ndim][0]}
    whole_images, whole_masks = run(images, EVERYTHING, masks, positions=[7, 0, 3, 5], **address)
    for chosen in ([2], [3, 1], [1, 0, 2]):
        positions = [[7, 0, 3, 5][i] for i in chosen]
        part_images, part_masks = run(images[chosen], EVERYTHING, masks[chosen], positions=positions, **address)
        assert torch.equal(part_images, whole_images[chosen])
        assert torch.equal(part_masks, whole_masks[chosen])


@pytest.mark.parametrize("change", [{"seed": 6}, {"step": 4}, {"positions": [1]}])
def test_another_address_changes_it_otherwise(change: dict[str, Any]) -> None:
    images, _ = random_batch(1, (8, 8))
    assert not torch.equal(run(images, EVERYTHING)[0], run(images, EVERYTHING, **change)[0])
    noise = with_only(p_noise=1)
    assert not torch.equal(run(images, noise)[0], run(images, noise, **change)[0])


def test_input_is_left_alone() -> None:
    images, masks = random_batch(3, (8, 9))
    before = images.clone(), masks.clone()
    run(images, EVERYTHING, masks)
    assert torch.equal(images, before[0])
    assert torch.equal(masks, before[1])


@pytest.mark.parametrize("ndim", [2, 3])
def test_without_changes_the_centre_is_kept(ndim: int) -> None:
    images, masks = random_batch(2, read_size(ndim))
    size, margin = SIZES[ndim]
    got_images, got_masks = run(images, NOTHING, masks, patch_size=size)
    centre = (..., *(slice(margin, margin + n) for n in size))
    assert torch.equal(got_images, images[centre])
    assert torch.equal(got_masks, masks[centre])
    assert got_masks.dtype == torch.uint8


# --- Space -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ndim", [2, 3])
def test_flips_are_exact_and_all_of_them_occur(ndim: int) -> None:
    images, masks = random_batch(60, SIZES[ndim][0])
    got_images, got_masks = run(images, with_only(mirror_axes=None), masks)
    found = set()
    for position in range(60):
        flips = drawn(position, with_only(mirror_axes=None), ndim).flips
        axes = [axis for axis in range(ndim) if flips[axis]]
        np.testing.assert_array_equal(got_images[position], np.flip(images[position].numpy(), [a + 1 for a in axes]))
        np.testing.assert_array_equal(got_masks[position], np.flip(masks[position].numpy(), axes))
        found.add(flips)
    assert found == set(itertools.product([True, False], repeat=ndim))


def test_only_the_axes_named_are_mirrored() -> None:
    spec = with_only(mirror_axes=(1,))
    found = {drawn(position, spec, 3).flips for position in range(40)}
    assert found == {(False, False, False), (False, True, False)}


@pytest.mark.parametrize("axes", [[2], [-1], [0, 0]])
def test_axes_that_there_are_not(axes: list[int]) -> None:
    with pytest.raises(ValueError, match=r"augment.mirror_axes: different axes of 0..1"):
        TrainSpec(patch_size=(8, 8), augment={"mirror_axes": axes})


@pytest.mark.parametrize("margin", [0, 3])
@pytest.mark.parametrize("ndim", [2, 3])
def test_rotation_and_scale_are_those_of_scipy(ndim: int, margin: int) -> None:
    size = SIZES[ndim][0]
    images, masks = random_batch(3, tuple(n + 2 * margin for n in size))
    spec = with_only(p_rotate=1, p_scale=1)
    got_images, got_masks = run(images, spec, masks, patch_size=size)
    for position in range(3):
        matrix = drawn(position, spec, ndim).matrix
        centre_in, centre_out = ((np.array(s) - 1) / 2 for s in (images.shape[2:], size))

        def by_scipy(volume: Tensor, order: int, matrix=matrix, offset=centre_in - matrix @ centre_out) -> np.ndarray:
            return ndimage.affine_transform(volume.numpy(), matrix, offset, size, order=order, mode="grid-constant")

        for channel in range(2):
            reference = by_scipy(images[position, channel], order=1)
            np.testing.assert_allclose(got_images[position, channel], reference, atol=1e-4)
        assert (got_masks[position].numpy() == by_scipy(masks[position], order=0)).mean() > 0.995  # but for ties


def blob_at(size: tuple[int, ...], offset: np.ndarray, radius: float) -> tuple[Tensor, Tensor]:
    """A Gaussian whose centre lies ``offset`` voxels from the middle, and the ball of that radius as a mask."""
    grids = np.meshgrid(*[np.arange(n) - (n - 1) / 2 for n in size], indexing="ij")
    squared = sum((g - o) ** 2 for g, o in zip(grids, offset, strict=True))
    image = torch.from_numpy(np.exp(-squared / 4)).float()
    return image[None, None], torch.from_numpy(squared < radius**2).to(torch.uint8)[None]


def centre_of(volume: Tensor) -> np.ndarray:
    """Centre of mass, in voxels from the middle."""
    return np.array(ndimage.center_of_mass(volume.numpy())) - (np.array(volume.shape) - 1) / 2


@pytest.mark.parametrize(("size", "margin"), [((24, 40), 0), ((20, 32), 6), ((24, 30, 40), 0), ((20, 24, 28), 4)])
@pytest.mark.parametrize("scale", [1.0, 0.8, 1.25])
def test_blob_moves_by_the_known_angle(
    monkeypatch: pytest.MonkeyPatch, size: tuple[int, ...], margin: int, scale: float
) -> None:
    ndim, angle = len(size), math.radians(40)
    offset = np.array([2.0, 3.0, -1.5][:ndim])
    turn = np.eye(ndim)  # output to input, in the plane of the last two axes
    turn[-2:, -2:] = [[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]]
    fixed = AugmentParameters((False,) * ndim, turn / scale, 0.0, 0.0, 1.0, 1.0, 1.0, (1.0, 1.0))
    monkeypatch.setattr(module, "draw_parameters", lambda *_: fixed)
    image, mask = blob_at(tuple(n + 2 * margin for n in size), offset, radius=3.0)
    got_image, got_mask = run(image, NOTHING, mask, patch_size=size)
    a, b = offset[-2:]
    turned = [a * math.cos(angle) + b * math.sin(angle), b * math.cos(angle) - a * math.sin(angle)]
    expected = scale * np.array([*offset[:-2], *turned])
    np.testing.assert_allclose(centre_of(got_image[0, 0]), expected, atol=0.02)
    np.testing.assert_allclose(centre_of(got_mask[0]), expected, atol=0.3)  # whole voxels
    assert got_mask.sum().item() == pytest.approx(mask.sum().item() * scale**ndim, rel=0.15)


def test_quarter_turn_is_exact(monkeypatch: pytest.MonkeyPatch) -> None:
    fixed = AugmentParameters((False, False), np.array([[0.0, -1.0], [1.0, 0.0]]), 0.0, 0.0, 1.0, 1.0, 1.0, (1.0, 1.0))
    monkeypatch.setattr(module, "draw_parameters", lambda *_: fixed)
    images, masks = random_batch(1, (9, 9))
    got_image, got_mask = run(images, NOTHING, masks)
    torch.testing.assert_close(got_image, torch.rot90(images, -1, dims=(2, 3)), atol=1e-5, rtol=0)
    assert torch.equal(got_mask, torch.rot90(masks, -1, dims=(1, 2)))


@pytest.mark.parametrize("ndim", [2, 3])
def test_image_and_mask_move_together(ndim: int) -> None:
    size = (24, 30, 20)[:ndim]
    offset = np.array([2.0, -4.0, 1.0][:ndim])
    _, mask = blob_at(tuple(n + 8 for n in size), offset, radius=7.0)
    masks = mask.repeat(12, *[1] * ndim)
    spec = with_only(mirror_axes=None, p_rotate=1, p_scale=1)
    got_images, got_masks = run(masks[:, None].float(), spec, masks, patch_size=size)
    inside = got_images[:, 0] > 0.5
    shared = (inside & got_masks.bool()).flatten(1).sum(1)
    dice = 2 * shared / (inside.flatten(1).sum(1) + got_masks.flatten(1).sum(1))
    assert dice.min() > 0.97
    assert len({tuple(np.round(centre_of(m), 1)) for m in got_masks}) == 12  # each to another place


def test_intensity_changes_leave_the_mask_alone() -> None:
    images, masks = random_batch(4, (10, 12))
    spec = EVERYTHING.model_copy(update={"mirror_axes": (), "p_rotate": 0, "p_scale": 0})
    got_images, got_masks = run(images, spec, masks)
    assert torch.equal(got_masks, masks)
    assert not torch.isclose(got_images, images).all(dim=1).any(dim=0).all()


@pytest.mark.parametrize("coarse", [0, 1, 2])
def test_thick_slices_are_turned_and_scaled_in_their_plane(coarse: int) -> None:
    spec = with_only(p_rotate=1, p_scale=1, coarse_axis=coarse)
    matrix = drawn(0, spec, 3).matrix
    assert matrix is not None
    unit = np.eye(3)[coarse]
    np.testing.assert_array_equal(matrix[coarse], unit)
    np.testing.assert_array_equal(matrix[:, coarse], unit)
    plane = np.delete(np.delete(matrix, coarse, 0), coarse, 1)
    scale = np.linalg.det(plane) ** -0.5
    np.testing.assert_allclose(plane @ plane.T, np.eye(2) / scale**2, atol=1e-12)
    assert abs(scale - 1) > 0.01
    assert abs(plane[0, 1]) > 0.01


@pytest.mark.parametrize("size", [(512, 16), (16, 512)])
def test_autocast_does_not_reach_the_grid_nor_the_intensities(size: tuple[int, int]) -> None:
    columns = torch.arange(512.0).reshape([512 if n == 512 else 1 for n in size]) + torch.zeros(size)
    images, masks = columns[None, None] / 512, torch.zeros(1, *size, dtype=torch.uint8)
    spec = with_only(p_scale=1, scale=(0.999, 0.999))
    with torch.autocast("cpu", torch.bfloat16):
        moved, _ = run(images, spec, masks)
        changed, _ = run(images, EVERYTHING, masks)
    assert moved.dtype == torch.float32
    assert len(moved[0, 0].select(0 if size[0] == 16 else 1, 8).unique()) == 512
    assert torch.equal(moved, run(images, spec, masks)[0])
    assert torch.equal(changed, run(images, EVERYTHING, masks)[0])


# --- Intensities -----------------------------------------------------------------------------------------------------


def test_brightness_multiplies() -> None:
    images, _ = random_batch(2, (6, 7))
    got, _ = run(images, with_only(p_brightness=1, brightness=(1.5, 1.5)))
    torch.testing.assert_close(got, 1.5 * images)


def test_contrast_stretches_about_the_mean_within_the_range() -> None:
    image = torch.tensor([0.0, 4.0, 5.0, 7.0]).reshape(1, 1, 2, 2)  # mean 4
    got, _ = run(image, with_only(p_contrast=1, contrast=(2.0, 2.0)))
    assert got.flatten().tolist() == [0.0, 4.0, 6.0, 7.0]  # -4 and 10 are beyond what there was
    got, _ = run(image, with_only(p_contrast=1, contrast=(0.5, 0.5)))
    assert got.flatten().tolist() == [2.0, 4.0, 4.5, 5.5]


@pytest.mark.parametrize("sigma", [0.4, 0.8, 1.5])
@pytest.mark.parametrize("ndim", [2, 3])
def test_blur_is_that_of_scipy(ndim: int, sigma: float) -> None:
    images, _ = random_batch(2, SIZES[ndim][0])
    got, _ = run(images, with_only(p_blur=1, blur_sigma=(sigma, sigma)))
    for image, blurred in zip(images.flatten(0, 1), got.flatten(0, 1), strict=True):
        reference = ndimage.gaussian_filter(image.numpy(), sigma, mode="nearest", truncate=3.0)
        np.testing.assert_allclose(blurred, reference, atol=1e-5)


def test_blur_and_low_resolution_keep_a_constant() -> None:
    image = torch.full((1, 2, 8, 9, 10), 3.5)
    got, _ = run(image, with_only(p_blur=1, p_low_resolution=1))
    torch.testing.assert_close(got, image)


def test_low_resolution_by_hand() -> None:
    image = torch.tensor([0.0, 4.0, 8.0, 12.0]).reshape(1, 1, 1, 4)
    got, _ = run(image, with_only(p_low_resolution=1, low_resolution=(0.5, 0.5)))
    torch.testing.assert_close(got.flatten(), torch.tensor([2.0, 4.0, 8.0, 10.0]))  # means of equally near, then linear
    image = torch.tensor([9.0, 0.0, 9.0, 9.0, 6.0, 9.0]).reshape(1, 1, 1, 6)
    got, _ = run(image, with_only(p_low_resolution=1, low_resolution=(1 / 3, 1 / 3)))
    torch.testing.assert_close(got.flatten(), torch.tensor([0.0, 0.0, 2.0, 4.0, 6.0, 6.0]))  # the middle of every three


@pytest.mark.parametrize("factor", [0.5, 0.55, 2 / 3, 0.75, 0.9])
@pytest.mark.parametrize("ndim", [2, 3])
def test_low_resolution_leaves_the_image_on_its_mask(ndim: int, factor: float) -> None:
    size = (48, 40, 44)[:ndim]
    grids = torch.meshgrid(*[torch.arange(float(n)) for n in size], indexing="ij")
    images = torch.stack(grids)[None]  # one channel rises along each axis: its value is where it was read
    got, _ = run(images, with_only(p_low_resolution=1, low_resolution=(factor, factor)))
    assert not torch.allclose(got, images, atol=0.1)
    shifts = (got - images)[(..., *[slice(4, -4)] * ndim)].flatten(2).mean(2)
    assert shifts.abs().max() < 0.05


def test_low_resolution_leaves_thick_slices_alone() -> None:
    image = torch.arange(8.0).reshape(1, 1, 8, 1, 1) + torch.zeros(8, 12, 12)
    got, _ = run(image, with_only(p_low_resolution=1, coarse_axis=0))
    torch.testing.assert_close(got, image)


def test_gamma_by_hand() -> None:
    image = torch.tensor([2.0, 4.0, 4.0, 6.0]).reshape(1, 1, 2, 2)
    squared = torch.tensor([0.0, 0.25, 0.25, 1.0])
    expected = (squared - squared.mean()) / squared.std() * image.std() + 4.0
    got, _ = run(image, with_only(p_gamma=1, gamma=(2.0, 2.0)))
    torch.testing.assert_close(got.flatten(), expected)
    got, _ = run(image, with_only(p_gamma_inverted=1, gamma=(2.0, 2.0)))
    torch.testing.assert_close(got.flatten(), 8 - expected.flip(0))  # the same curve from the other end


@pytest.mark.parametrize("gamma", [0.7, 1.5])
def test_gamma_keeps_order_mean_and_deviation(gamma: float) -> None:
    images, _ = random_batch(1, (8, 9), channels=3)
    got, _ = run(images, with_only(p_gamma=1, p_gamma_inverted=1, gamma=(gamma, gamma)))
    torch.testing.assert_close(got.mean((2, 3)), images.mean((2, 3)), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(got.std((2, 3)), images.std((2, 3)), atol=1e-5, rtol=1e-4)
    assert torch.equal(got.flatten(2).argsort(), images.flatten(2).argsort())


@pytest.mark.parametrize("spec", [EVERYTHING, with_only(p_gamma=1), with_only(p_contrast=1)])
def test_constant_images_stay_finite(spec: AugmentSpec) -> None:
    got, _ = run(torch.full((3, 1, 8, 8), 2.0), spec)
    assert got.isfinite().all()


def test_noise_has_the_drawn_deviation() -> None:
    spec = with_only(p_noise=1, noise_std=0.5)
    got, _ = run(torch.zeros(4, 2, 60, 60), spec)
    for position in range(4):
        deviation = drawn(position, spec, 2).noise_std
        assert 0 < deviation <= 0.5
        assert got[position].std().item() == pytest.approx(deviation, rel=0.05)
        assert got[position].mean().item() == pytest.approx(0, abs=0.05 * deviation)
    unit = (got / got.std(dim=(2, 3), keepdim=True)).flatten(0, 1).flatten(1)
    correlations = torch.corrcoef(unit) - torch.eye(8)  # samples and channels are apart
    assert correlations.abs().max() < 0.1


@pytest.mark.parametrize("change", [{"seed": 6}, {"step": 4}])
def test_noise_is_other_noise_at_another_address(change: dict[str, Any]) -> None:
    spec = with_only(p_noise=1)
    pair = torch.cat([run(torch.zeros(1, 1, 60, 60), spec, **address)[0] for address in ({}, change)])
    assert torch.corrcoef(pair.flatten(1))[0, 1].abs() < 0.1


# --- Draws -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ndim", [2, 3])
def test_draws_lie_in_their_ranges(ndim: int) -> None:
    spec = EVERYTHING.model_copy(update={"scale": (1.0, 1.0), "rotate_degrees": 25.0})
    draws = [drawn(position, spec, ndim) for position in range(300)]
    for d in draws:
        assert d.matrix is not None
        np.testing.assert_allclose(d.matrix @ d.matrix.T, np.eye(ndim), atol=1e-12)
        assert np.linalg.det(d.matrix) == pytest.approx(1)
        assert 0.5 <= d.blur_sigma <= 1.0
        assert 0.75 <= d.brightness <= 1.25
        assert 0.5 <= d.low_resolution <= 1.0
        assert all(0.7 <= gamma <= 1.5 for gamma in d.gammas)
    if ndim == 2:
        angles = [math.degrees(math.atan2(d.matrix[1, 0], d.matrix[0, 0])) for d in draws]
        assert -25 <= min(angles) < -20
        assert 20 < max(angles) <= 25
    sizes = [
        np.linalg.det(drawn(position, with_only(p_scale=1), ndim).matrix) ** (-1 / ndim) for position in range(300)
    ]
    assert 0.7 <= min(sizes) < 0.75
    assert 1.35 < max(sizes) <= 1.4


def test_probabilities_are_as_said() -> None:
    draws = [drawn(position, AugmentSpec(), 3) for position in range(3000)]
    rates = {
        0.2 + 0.2 - 0.04: [d.matrix is not None for d in draws],
        0.1: [d.noise_std > 0 for d in draws],
        0.2: [d.blur_sigma > 0 for d in draws],
        0.15: [d.brightness != 1 for d in draws],
        0.15 + 1e-9: [d.contrast != 1 for d in draws],
        0.25: [d.low_resolution != 1 for d in draws],
        0.3: [d.gammas[0] != 1 for d in draws],
        0.1 + 1e-9: [d.gammas[1] != 1 for d in draws],
        0.5: [d.flips[1] for d in draws],
    }
    for probability, chosen in rates.items():
        deviation = math.sqrt(probability * (1 - probability) / len(draws))
        assert abs(np.mean(chosen) - probability) < 5 * deviation, probability


# --- Label maps of a previous network --------------------------------------------------------------------------------


@pytest.mark.parametrize("ndim", [2, 3])
def test_a_label_map_is_moved_as_the_mask_and_nothing_else_changes(ndim: int) -> None:
    images, masks = random_batch(4, read_size(ndim))
    spec = EVERYTHING.model_copy(update={"p_distort": 0.0, "p_remove": 0.0})
    size, place = SIZES[ndim][0], ([0, 1, 2, 3], 3, 5)
    alone, moved = augment(images, masks, *place, size, spec)
    both, again = augment(torch.cat([images, masks[:, None]], dim=1), masks, *place, size, spec, num_previous=3)
    assert torch.equal(both[:, :-1], alone)
    assert torch.equal(again, moved)
    assert torch.equal(both[:, -1], moved.to(both.dtype))
    distorted, same = augment(torch.cat([images, masks[:, None]], 1), masks, *place, size, EVERYTHING, num_previous=3)
    assert torch.equal(same, moved)
    assert torch.equal(distorted[:, :-1], alone)
    assert not torch.equal(distorted[:, -1], both[:, -1])


@pytest.mark.parametrize(
    ("steps", "reference"),
    [
        ((True,), ndimage.binary_dilation),
        ((False,), lambda x, square: ndimage.binary_erosion(x, square, border_value=1)),
        (
            (True, False),
            lambda x, square: ndimage.binary_erosion(ndimage.binary_dilation(x, square), square, border_value=1),
        ),
        (
            (False, True),
            lambda x, square: ndimage.binary_dilation(ndimage.binary_erosion(x, square, border_value=1), square),
        ),
    ],
    ids=["dilation", "erosion", "closing", "opening"],
)
def test_a_class_is_distorted_as_scipy_does(steps: tuple[bool, ...], reference: Any) -> None:
    labels = (np.random.default_rng(0).uniform(size=(14, 17)) < 0.4).astype(int) * 2
    labels[3:9, 4:12] = 2
    labels[0, :] = 1
    want = np.where(labels == 2, 0, labels)
    want[reference(labels == 2, np.ones((5, 5)))] = 2
    found = distort_labels(torch.from_numpy(labels).float(), [Distortion((), 1), Distortion(steps, 2)])
    np.testing.assert_array_equal(found.numpy(), want)
    assert torch.equal(distort_labels(torch.ones(1, 4, 4), [Distortion((), 3)]), torch.ones(1, 4, 4))


def test_classes_are_distorted_as_often_as_is_said() -> None:
    spec = with_only(p_distort=0.25, distort_radius=2)
    found = [draw_parameters(np.random.default_rng(seed), spec, 3, 2).distortions for seed in range(800)]
    assert {len(each) for each in found} == {2}
    steps = [each.steps for pair in found for each in pair]
    assert 0.2 < np.mean([bool(each) for each in steps]) < 0.3
    assert set(steps) == {(), *DISTORTIONS}
    assert {each.radius for pair in found for each in pair} == {1, 2}


def test_one_small_component_is_taken_away() -> None:
    """Of three of class 1, the largest covers 16 of 80 pixels and stays, whatever is drawn; two touch at a corner."""
    labels = torch.zeros(8, 10)
    labels[:4, :4] = 1
    labels[5, 8] = labels[6, 9] = 1
    labels[7, 0] = 1
    labels[7, 5] = 2
    first, second = labels.clone(), labels.clone()
    first[5, 8] = first[6, 9] = 0
    second[7, 0] = 0
    for place, want in ((0.0, first), (0.49, first), (0.5, second), (1.0, second)):
        assert torch.equal(distort_labels(labels, [Distortion((), 1, place), Distortion((), 1)]), want)
    for none in (torch.zeros(4, 4), torch.ones(4, 4)):
        assert torch.equal(distort_labels(none, [Distortion((), 1, 0.5)]), none)


def test_components_are_taken_away_as_often_as_is_said() -> None:
    spec = with_only(p_remove=0.25)
    found = [draw_parameters(np.random.default_rng(seed), spec, 3, 2).distortions for seed in range(800)]
    places = [each.removed for pair in found for each in pair]
    drawn = [place for place in places if place is not None]
    assert 0.2 < len(drawn) / len(places) < 0.3
    assert 0.4 < np.mean(drawn) < 0.6
    assert all(
        each.removed is None for each in draw_parameters(np.random.default_rng(0), with_only(), 3, 2).distortions
    )
