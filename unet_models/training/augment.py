"""Augmentation of a batch on the training device (nnU-Net's transforms).

Each sample's parameters come from its own generator, addressed by (seed, step, position in the global batch), so that
a sample is augmented alike whichever worker holds it. Rotation and scaling are one resampling. All of it runs in
float32, whatever autocast is on: bf16 cannot tell the neighbouring columns of a grid of 512 apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from data_pipelines.random_streams import Stream, numpy_generator, torch_generator
from unet_models.precision import full_precision
from unet_models.specs.segmentation import AugmentSpec
from unet_models.training.distort import Distortion, distort_labels, draw_distortion


@dataclass(frozen=True, slots=True)
class AugmentParameters:
    """Parameters of one sample's augmentation."""

    flips: tuple[bool, ...]
    """Axes to mirror."""
    matrix: np.ndarray | None
    """(ndim, ndim) rotation and scaling, output to input, in voxel coordinates; None: no resampling."""
    noise_std: float
    """Standard deviation of the noise; 0: none."""
    blur_sigma: float
    """Standard deviation of the blur in voxels; 0: none."""
    brightness: float
    """Factor of the intensities; 1: no change."""
    contrast: float
    """Factor of the deviations from the mean; 1: no change."""
    low_resolution: float
    """Downsampling factor; 1: no change."""
    gammas: tuple[float, ...]
    """Exponents of gamma correction and of that of the inverted image; 1: no change."""
    distortions: tuple[Distortion, ...] = ()
    """Changes of the classes of a previous segmentation, from 1 on."""


def augment(
    images: Float[Tensor, "batch channels *read"],
    masks: Int[Tensor, " batch *read"],
    positions: Sequence[int],
    step: int,
    seed: int,
    patch_size: tuple[int, ...],
    spec: AugmentSpec,
    num_previous: int = 0,
) -> tuple[Float[Tensor, "batch channels *patch"], Int[Tensor, " batch *patch"]]:
    """Augment copies of the batch and crop them to the centre ``patch_size``.

    ``positions`` are the samples' positions in the global batch of ``step``. With ``num_previous`` the last channel of
    the images is a label map of so many classes beside the background: it is moved as the mask is, keeps its
    intensities, and is distorted by itself.
    """
    generators = [numpy_generator(seed, Stream.AUGMENTATION, step, position) for position in positions]
    drawn = [draw_parameters(generator, spec, len(patch_size), num_previous) for generator in generators]
    with full_precision(images.device):
        labels = masks[:, None]
        if num_previous:
            images, previous = images[:, :-1], images[:, -1:]
            labels = torch.cat([labels, previous.to(masks.dtype)], dim=1)
        images, labels = _spatial(images.float(), labels, drawn, patch_size)
        augmented = []
        for image, position, parameters in zip(images.unsqueeze(1), positions, drawn, strict=True):  # (1, C, *patch)
            if parameters.noise_std:
                noise = torch_generator(image.device, seed, Stream.NOISE, step, position)
                image = image + parameters.noise_std * torch.randn(image.shape, generator=noise, device=image.device)
            augmented.append(_intensity(image, parameters, _coarse_axis(spec, len(patch_size))))
        if num_previous:
            pairs = zip(labels[:, 1].to(images.dtype), drawn, strict=True)
            previous = torch.stack([distort_labels(each, parameters.distortions) for each, parameters in pairs])
            return torch.cat([torch.cat(augmented), previous[:, None]], dim=1), labels[:, 0]
        return torch.cat(augmented), labels[:, 0]


def draw_parameters(rng: np.random.Generator, spec: AugmentSpec, ndim: int, num_previous: int = 0) -> AugmentParameters:
    """Draw one sample's parameters. The order of draws is part of the contract: it decides the numbers."""

    def chosen(probability: float, low: float, high: float, otherwise: float = 1.0) -> float:
        value = rng.uniform(low, high)
        return float(value) if rng.uniform() < probability else otherwise

    mirrored = spec.mirrored(ndim)
    flips = tuple(axis in mirrored and bool(rng.uniform() < 0.5) for axis in range(ndim))
    turns = rng.uniform() < spec.p_rotate
    limit = np.deg2rad(spec.rotate_degrees)
    angles = rng.uniform(-limit, limit, size=1 if ndim == 2 else 3)
    scale = chosen(spec.p_scale, *spec.scale)
    coarse = _coarse_axis(spec, ndim)
    matrix = _matrix(angles if turns else np.zeros_like(angles), scale, coarse) if turns or scale != 1.0 else None
    return AugmentParameters(
        flips=flips,
        matrix=matrix,
        noise_std=chosen(spec.p_noise, 0.0, spec.noise_std, otherwise=0.0),
        blur_sigma=chosen(spec.p_blur, *spec.blur_sigma, otherwise=0.0),
        brightness=chosen(spec.p_brightness, *spec.brightness),
        contrast=chosen(spec.p_contrast, *spec.contrast),
        low_resolution=chosen(spec.p_low_resolution, *spec.low_resolution),
        gammas=(chosen(spec.p_gamma, *spec.gamma), chosen(spec.p_gamma_inverted, *spec.gamma)),
        distortions=tuple(draw_distortion(rng, spec) for _ in range(num_previous)),
    )


def _coarse_axis(spec: AugmentSpec, ndim: int) -> int | None:
    """Return the axis that rotation, scaling and downsampling leave alone; ``auto`` is resolved before training."""
    return None if ndim == 2 or spec.coarse_axis == "auto" else spec.coarse_axis


def _centre_crop(x: Tensor, size: Sequence[int]) -> Tensor:
    """Crop the last axes to their centre ``size``."""
    lead = (slice(None),) * (x.ndim - len(size))
    starts = [(have - want) // 2 for have, want in zip(x.shape[-len(size) :], size, strict=True)]
    return x[(*lead, *(slice(a, a + n) for a, n in zip(starts, size, strict=True)))]


def _matrix(angles: np.ndarray, scale: float, coarse_axis: int | None) -> np.ndarray:
    """Compute the (ndim, ndim) rotation and scaling, output to input; with ``coarse_axis`` in the other axes' plane."""
    ndim = 2 if len(angles) == 1 else 3
    scales = np.full(ndim, scale)
    if coarse_axis is not None:
        scales[coarse_axis] = 1.0
        angles = np.where(np.arange(ndim) == coarse_axis, angles, 0.0)  # angle i turns about axis i
    return _rotation(angles) / scales


def _rotation(angles: np.ndarray) -> np.ndarray:
    """Compute the (ndim, ndim) product of rotations about each axis (2-D: one)."""
    ndim = 2 if len(angles) == 1 else 3
    planes = [(0, 1)] if ndim == 2 else [(1, 2), (0, 2), (0, 1)]
    matrix = np.eye(ndim)
    for angle, (i, j) in zip(angles, planes, strict=True):
        turn = np.eye(ndim)
        turn[[i, j], [i, j]] = np.cos(angle)
        turn[i, j], turn[j, i] = -np.sin(angle), np.sin(angle)
        matrix = matrix @ turn
    return matrix


def _spatial(
    images: Tensor, masks: Tensor, drawn: list[AugmentParameters], patch_size: tuple[int, ...]
) -> tuple[Tensor, Tensor]:
    """Rotate and scale images and masks (B, M, *read) where drawn, crop to the centre, mirror."""
    out_images, out_masks = [], []
    for image, mask, parameters in zip(images, masks, drawn, strict=True):
        if parameters.matrix is None:
            image, mask = _centre_crop(image, patch_size), _centre_crop(mask, patch_size)
        else:
            image, mask = _resample(image, mask, parameters.matrix, patch_size)
        axes = [axis - len(patch_size) for axis, flip in enumerate(parameters.flips) if flip]
        out_images.append(image.flip(axes) if axes else image)
        out_masks.append(mask.flip(axes) if axes else mask)
    return torch.stack(out_images), torch.stack(out_masks)


def _resample(image: Tensor, mask: Tensor, matrix: np.ndarray, patch_size: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Resample the (C, *read) image linearly and (M, *read) masks by nearest neighbour; outside is 0 (background)."""
    read = np.array(image.shape[1:], dtype=np.float64)
    # affine_grid works in units of half extents, last axis first: voxel matrix M becomes S_in^-1 M S_out, reversed.
    normalised = (matrix * np.array(patch_size)[None, :] / read[:, None])[::-1, ::-1]
    theta = np.zeros((1, len(patch_size), len(patch_size) + 1))
    theta[0, :, :-1] = normalised
    grid = F.affine_grid(
        torch.tensor(theta, dtype=torch.float32, device=image.device), [1, 1, *patch_size], align_corners=False
    )
    image = F.grid_sample(image[None], grid, mode="bilinear", padding_mode="zeros", align_corners=False)[0]
    labels = F.grid_sample(mask[None].float(), grid, mode="nearest", padding_mode="zeros", align_corners=False)
    return image, labels[0].to(mask.dtype)


def _intensity(image: Tensor, parameters: AugmentParameters, coarse_axis: int | None) -> Tensor:
    """Apply blur, brightness, contrast, low resolution and gamma to one (1, C, *patch) image."""
    spatial = list(range(2, image.ndim))
    if parameters.blur_sigma:
        image = _blur(image, parameters.blur_sigma)
    if parameters.brightness != 1.0:
        image = image * parameters.brightness
    if parameters.contrast != 1.0:
        mean = image.mean(dim=spatial, keepdim=True)
        low, high = image.amin(dim=spatial, keepdim=True), image.amax(dim=spatial, keepdim=True)
        image = torch.clamp((image - mean) * parameters.contrast + mean, low, high)
    if parameters.low_resolution != 1.0:
        image = _lower_resolution(image, parameters.low_resolution, coarse_axis)
    for sign, gamma in zip((1, -1), parameters.gammas, strict=True):
        if gamma != 1.0:
            image = sign * _gamma(sign * image, gamma)
    return image


def _blur(image: Tensor, sigma: float) -> Tensor:
    """Blur with a separable Gaussian of ``sigma`` voxels, truncated at 3 sigma."""
    radius = max(int(3 * sigma + 0.5), 1)
    x = torch.arange(-radius, radius + 1, device=image.device, dtype=image.dtype)
    kernel = torch.exp(-0.5 * (x / sigma) ** 2)
    kernel = kernel / kernel.sum()
    for axis in range(2, image.ndim):
        moved = image.transpose(axis, -1)
        flat = F.pad(moved.reshape(-1, 1, moved.shape[-1]), (radius, radius), mode="replicate")
        image = F.conv1d(flat, kernel[None, None]).reshape(moved.shape).transpose(axis, -1)
    return image


def _lower_resolution(image: Tensor, factor: float, coarse_axis: int | None) -> Tensor:
    """Downsample by ``factor`` (nearest) and upsample again (linear), to simulate a scan of lower resolution.

    Where two voxels are equally near, as everywhere at a factor of one half, it is their mean: taking the same one of
    the two each time would move the image by half a voxel against its mask.
    """
    size = image.shape[2:]
    small = [n if axis == coarse_axis else max(round(n * factor), 1) for axis, n in enumerate(size)]
    spatial = list(range(2, image.ndim))
    coarse = F.interpolate(image, small, mode="nearest-exact")
    mirrored = F.interpolate(image.flip(spatial), small, mode="nearest-exact").flip(spatial)
    mode = "bilinear" if len(size) == 2 else "trilinear"
    return F.interpolate((coarse + mirrored) / 2, size, mode=mode, align_corners=False)


def _gamma(image: Tensor, gamma: float) -> Tensor:
    """Apply gamma correction over the image's range; keeps mean and deviation (nnU-Net's ``retain_stats``)."""
    spatial = list(range(2, image.ndim))
    mean, std = image.mean(dim=spatial, keepdim=True), image.std(dim=spatial, keepdim=True)
    low = image.amin(dim=spatial, keepdim=True)
    extent = image.amax(dim=spatial, keepdim=True) - low
    curved = ((image - low) / (extent + 1e-7)) ** gamma
    curved = curved - curved.mean(dim=spatial, keepdim=True)
    return curved / (curved.std(dim=spatial, keepdim=True) + 1e-7) * std + mean
