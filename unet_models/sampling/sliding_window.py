"""Sliding-window prediction with Gaussian weights and test-time augmentation by mirroring (Isensee 2021)."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from data_pipelines.mirroring import mirrored_indices
from unet_models.specs.segmentation import PredictSpec


@torch.inference_mode()
def predict_logits(
    model: nn.Module,
    image: Float[Tensor, " channels *spatial"],
    patch_size: Sequence[int],
    spec: PredictSpec,
    mirror_axes: Sequence[int] = (),
    border: Sequence[int] = (),
) -> Float[Tensor, " classes *spatial"]:
    """Predict the logits of one image of any size, as the weighted mean over overlapping windows.

    With ``spec.tta`` each window's prediction is the mean over its copies mirrored along ``mirror_axes``, which must
    be axes that training mirrored: a network that tells left from right is wrong about the others. An image smaller
    than the window is padded with zeros; windows weigh most at their centre (see ``gaussian_window``). The result is
    float32 on the image's device.

    A network with valid convolutions is given ``border`` voxels more on each side of a window, per axis, mirrored
    beyond the image: the overlap-tile strategy (Ronneberger 2015, figure 2).
    """
    size = image.shape[1:]
    padded, offset = _pad_to(image, patch_size)
    border = tuple(border) or (0,) * len(size)
    weights = gaussian_window(tuple(patch_size), image.device)
    total: Tensor | None = None
    norm = padded.new_zeros(padded.shape[1:])
    windows = list(iter_windows(padded.shape[1:], patch_size, spec.overlap))
    for window, logits in _predict_windows(
        model, _mirror(padded, border), border, windows, spec, mirror_axes if spec.tta else ()
    ):
        if total is None:
            total = padded.new_zeros((logits.shape[0], *padded.shape[1:]))
        total[(slice(None), *window)] += logits * weights
        norm[window] += weights
    assert total is not None
    total /= norm
    return total[(slice(None), *(slice(o, o + n) for o, n in zip(offset, size, strict=True)))]


def iter_windows(size: Sequence[int], patch_size: Sequence[int], overlap: float) -> Iterator[tuple[slice, ...]]:
    """Iterate over evenly spaced windows that cover ``size``; neighbours share at least ``overlap`` of a window."""
    starts = []
    for n, p in zip(size, patch_size, strict=True):
        count = 1 + max(0, -(-(n - p) // max(int(p * (1 - overlap)), 1)))
        starts.append([round(i * (n - p) / max(count - 1, 1)) for i in range(count)])
    for corner in itertools.product(*starts):
        yield tuple(slice(a, a + p) for a, p in zip(corner, patch_size, strict=True))


def gaussian_window(patch_size: tuple[int, ...], device: torch.device) -> Float[Tensor, "*patch"]:
    """Compute the Gaussian weights of a window's voxels: sigma is an eighth of the size, the maximum 1, none is 0."""
    weights = torch.ones((), device=device)
    for n in patch_size:
        x = torch.arange(n, device=device, dtype=torch.float32) - (n - 1) / 2
        weights = weights[..., None] * torch.exp(-0.5 * (x / (n / 8)) ** 2)
    return (weights / weights.max()).clamp_min(1e-4)


def _predict_windows(
    model: nn.Module,
    image: Tensor,
    border: Sequence[int],
    windows: list[tuple[slice, ...]],
    spec: PredictSpec,
    mirror_axes: Sequence[int],
) -> Iterator[tuple[tuple[slice, ...], Tensor]]:
    """Iterate over windows and their ``(K, *patch)`` logits, averaged over mirrored copies.

    ``image`` has ``border`` voxels more on each side than what the windows divide.
    """
    axes = [axis + 1 for axis in mirror_axes]  # after the channels
    flips = [flip for n in range(len(axes) + 1) for flip in itertools.combinations(axes, n)]
    for window in windows:
        read = (slice(part.start, part.stop + 2 * b) for part, b in zip(window, border, strict=True))
        patch = image[(slice(None), *read)]
        mirrored = torch.stack([patch.flip(f) if f else patch for f in flips])  # (F, C, *patch)
        logits = torch.cat([model(chunk).float() for chunk in mirrored.split(spec.batch_size)])
        yield window, torch.stack([o.flip(f) if f else o for o, f in zip(logits, flips, strict=True)]).mean(0)


def _mirror(image: Tensor, border: Sequence[int]) -> Tensor:
    """Add ``border`` mirrored voxels to each side of (C, *spatial); any number of them, unlike ``F.pad``."""
    for axis, (n, b) in enumerate(zip(image.shape[1:], border, strict=True), start=1):
        if b:
            image = image.index_select(axis, torch.from_numpy(mirrored_indices(-b, n + b, n)).to(image.device))
    return image


def _pad_to(image: Tensor, patch_size: Sequence[int]) -> tuple[Tensor, tuple[int, ...]]:
    """Centre the image in zeros where it is smaller than the window; also return its first voxel in the result."""
    missing = [max(p - n, 0) for n, p in zip(image.shape[1:], patch_size, strict=True)]
    before = tuple(m // 2 for m in missing)
    sides = [side for m, b in zip(reversed(missing), reversed(before), strict=True) for side in (b, m - b)]
    return F.pad(image, sides), before
