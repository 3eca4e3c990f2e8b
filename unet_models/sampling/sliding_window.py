"""Sliding-window prediction with Gaussian weights and test-time augmentation by mirroring (Isensee 2021).

An image is swept once along an axis: a plane is finished, and handed on, as soon as no window reaches it any more. So
the logits of an image of any size are never held as a whole.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from data_pipelines.mirroring import mirrored_indices
from unet_models.sampling.sweep import Box, Sweep
from unet_models.specs.segmentation import PredictSpec, count_windows

Window = tuple[slice, ...]
"""Part of the padded image that the network sees at once, per axis."""


def predict_logits(
    model: nn.Module,
    image: Float[Tensor, " channels *spatial"],
    patch_size: Sequence[int],
    spec: PredictSpec,
    mirror_axes: Sequence[int] = (),
    border: Sequence[int] = (),
) -> Float[Tensor, " classes *spatial"]:
    """Predict the logits of a whole image as float32, see ``predict_planes``."""
    return torch.stack(list(predict_planes(model, image, patch_size, spec, mirror_axes, border)), dim=1)


@torch.inference_mode()
def predict_planes(
    model: nn.Module,
    image: Float[Tensor, " channels *spatial"],
    patch_size: Sequence[int],
    spec: PredictSpec,
    mirror_axes: Sequence[int] = (),
    border: Sequence[int] = (),
    sweep: Sweep | None = None,
    box: Box | None = None,
) -> Iterator[Float[Tensor, " classes *plane"]]:
    """Predict the logits of one image of any size, as the weighted mean over overlapping windows.

    Yield planes across ``sweep.axis`` in order, float32 on the image's device; of ``box`` alone where it is given, a
    range of voxels per axis.

    With ``spec.tta`` each window's prediction is the mean over its copies mirrored along ``mirror_axes``, which must
    be axes that training mirrored: a network that tells left from right is wrong about the others. An image smaller
    than the window is padded with zeros; windows weigh most at their centre (see ``gaussian_window``).

    A network with valid convolutions is given ``border`` voxels more on each side of a window, per axis, mirrored
    beyond the image: the overlap-tile strategy (Ronneberger 2015, figure 2).
    """
    sweep, border = sweep or Sweep(), tuple(border) or (0,) * len(patch_size)
    padded, offset = _pad_to(image, patch_size)
    parts = zip(offset, image.shape[1:], box or [slice(None)] * len(patch_size), strict=True)
    box = tuple(slice(o + part.indices(n)[0], o + part.indices(n)[1]) for o, n, part in parts)
    windows = [each for each in iter_windows(padded.shape[1:], patch_size, spec.overlap) if _meet(each, box)]
    windows.sort(key=lambda window: window[sweep.axis].start)  # stable: other axes keep their order
    weights = WEIGHTINGS[spec.weighting](tuple(patch_size), image.device)
    means = _WeightedMeans(box, sweep.axis, patch_size[sweep.axis])
    axes = mirror_axes if spec.tta else ()
    batch_size = min(spec.batch_size, sweep.batch_size or spec.batch_size)
    predicted = _predict_windows(model, _mirror(padded, border), border, windows, batch_size, axes)
    for window, logits in predicted:
        yield from means.finish(window[sweep.axis].start)
        means.add(window, logits, weights)
    yield from means.finish(box[sweep.axis].stop)


def iter_windows(size: Sequence[int], patch_size: Sequence[int], overlap: float) -> Iterator[Window]:
    """Iterate over evenly spaced windows that cover ``size``; neighbours share at least ``overlap`` of a window.

    Of windows of odd sizes they share on average as much: starts are rounded.
    """
    starts = []
    for n, p in zip(size, patch_size, strict=True):
        count = count_windows(n, p, overlap)
        starts.append([round((n - p) / max(count - 1, 1) * i) for i in range(count)])
    for corner in itertools.product(*starts):
        yield tuple(slice(a, a + p) for a, p in zip(corner, patch_size, strict=True))


def gaussian_window(patch_size: tuple[int, ...], device: torch.device) -> Float[Tensor, "*patch"]:
    """Compute the Gaussian weights of a window's voxels: sigma is an eighth of the size, the maximum 1, none is 0."""
    weights = torch.ones((), device=device)
    for n in patch_size:
        x = torch.arange(n, device=device, dtype=torch.float32) - (n - 1) / 2
        weights = weights[..., None] * torch.exp(-0.5 * (x / (n / 8)) ** 2)
    return (weights / weights.max()).clamp_min(1e-4)


def nnunet_window(patch_size: tuple[int, ...], device: torch.device) -> Float[Tensor, "*patch"]:
    """Compute the weights of nnU-Net 2: a Gaussian about voxel ``n // 2``, in half precision, at least its smallest."""
    weights = torch.full((), 10.0, dtype=torch.float64)
    for n in patch_size:
        x = torch.arange(n, dtype=torch.float64) - n // 2
        weights = weights[..., None] * torch.exp(-0.5 * (x / (n / 8)) ** 2)
    half = weights.half()
    return torch.where(half == 0, half[half > 0].min(), half).float().to(device)


WEIGHTINGS = {"gaussian": gaussian_window, "nnunet": nnunet_window}
"""``PredictSpec.weighting`` to its function."""


class _WeightedMeans:
    """Weighted means over windows, of the planes that windows still reach."""

    def __init__(self, box: Window, axis: int, depth: int) -> None:
        """Prepare the means of ``box``; ``depth`` is the window's size along ``axis``, which is swept."""
        self.box, self.axis, self.depth = box, axis, depth
        self.first = 0
        """Position of the first plane that is held, in the padded image."""
        self.totals: Tensor | None = None
        self.norm: Tensor | None = None

    def add(self, window: Window, logits: Float[Tensor, " classes *patch"], weights: Float[Tensor, "*patch"]) -> None:
        """Add a window's logits, which are overwritten. Planes before the window must have been finished."""
        if self.totals is None or self.norm is None:
            shape = [self.depth if axis == self.axis else b.stop - b.start for axis, b in enumerate(self.box)]
            self.norm = logits.new_zeros(shape)
            self.totals = logits.new_zeros((len(logits), *shape))
            self.first = window[self.axis].start
        target, source = [], []
        for axis, (w, b) in enumerate(zip(window, self.box, strict=True)):
            low, high = (w.start, w.stop) if axis == self.axis else (max(w.start, b.start), min(w.stop, b.stop))
            origin = self.first if axis == self.axis else b.start
            target.append(slice(low - origin, high - origin))
            source.append(slice(low - w.start, high - w.start))
        self.norm[tuple(target)] += weights[tuple(source)]
        self.totals[(slice(None), *target)] += logits.mul_(weights)[(slice(None), *source)]

    def finish(self, stop: int) -> Iterator[Float[Tensor, " classes *plane"]]:
        """Yield the means of the planes of the box before position ``stop``, and go on from there."""
        if self.totals is None or self.norm is None or stop == self.first:
            return
        low, high = self.box[self.axis].start, self.box[self.axis].stop
        for plane in range(max(self.first, low), min(stop, high)):
            at = plane - self.first
            yield self.totals.select(1 + self.axis, at) / self.norm.select(self.axis, at)
        for held, axis in ((self.norm, self.axis), *((each, self.axis) for each in self.totals)):
            _move_to_front(held, axis, stop - self.first)
        self.first = stop


def _move_to_front(held: Tensor, axis: int, count: int) -> None:
    """Drop ``count`` planes from the front of an axis, and append as many zeros."""
    rest = max(held.shape[axis] - count, 0)
    if rest:
        held.narrow(axis, 0, rest).copy_(held.narrow(axis, count, rest).clone())  # they may overlap
    held.narrow(axis, rest, held.shape[axis] - rest).zero_()


def _predict_windows(
    model: nn.Module,
    image: Tensor,
    border: Sequence[int],
    windows: Sequence[Window],
    batch_size: int,
    mirror_axes: Sequence[int],
) -> Iterator[tuple[Window, Tensor]]:
    """Iterate over windows and their ``(K, *patch)`` logits, averaged over mirrored copies.

    ``image`` has ``border`` voxels more on each side than what the windows divide.
    """
    axes = [axis + 1 for axis in mirror_axes]  # after the channels
    flips = [flip for n in range(len(axes) + 1) for flip in itertools.combinations(axes, n)]
    for window in windows:
        read = (slice(part.start, part.stop + 2 * b) for part, b in zip(window, border, strict=True))
        patch = image[(slice(None), *read)]
        total: Tensor | None = None
        for start in range(0, len(flips), batch_size):
            some = flips[start : start + batch_size]
            for logits, flip in zip(model(torch.stack([patch.flip(f) for f in some])).float(), some, strict=True):
                if total is None:
                    total = logits.clone()  # of the window as it is; the model may have returned its input
                    continue
                for mean, of_class in zip(total, logits, strict=True):  # one by one: a mirrored copy takes memory
                    mean.add_(of_class.flip([axis - 1 for axis in flip]))
        assert total is not None
        yield window, total.div_(len(flips))


def _meet(window: Window, box: Window) -> bool:
    return all(w.start < b.stop and b.start < w.stop for w, b in zip(window, box, strict=True))


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
    if not any(missing):
        return image, before
    sides = [side for m, b in zip(reversed(missing), reversed(before), strict=True) for side in (b, m - b)]
    return F.pad(image, sides), before
