"""Distortion of the label map that the second network of a cascade is given (nnU-Net's transforms)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from unet_models.specs.segmentation import AugmentSpec

DISTORTIONS = ((True,), (False,), (True, False), (False, True))
"""Dilation, erosion, closing, opening."""
LARGEST_REMOVED = 0.15
"""Share of the patch below which a component of a previous segmentation may be taken away (nnU-Net's)."""


@dataclass(frozen=True, slots=True)
class Distortion:
    """Change of one class of a previous segmentation."""

    steps: tuple[bool, ...]
    """What is done one after the other: True dilates, False erodes. Empty: no change."""
    radius: int
    """Voxels along each axis."""
    removed: float | None = None
    """Place, from 0 to 1, of the component that is taken away among those that may be; None: all stay."""


def draw_distortion(rng: np.random.Generator, spec: AugmentSpec) -> Distortion:
    """Draw a dilation, erosion, closing or opening, or none; and a component that is taken away, or none."""
    is_chosen = rng.uniform() < spec.p_distort
    steps = DISTORTIONS[int(rng.integers(len(DISTORTIONS)))]
    radius = int(rng.integers(1, spec.distort_radius + 1))
    is_removed, place = rng.uniform() < spec.p_remove, float(rng.uniform())
    return Distortion(steps if is_chosen else (), radius, place if is_removed else None)


def distort_labels(labels: Float[Tensor, " *patch"], distortions: Sequence[Distortion]) -> Float[Tensor, " *patch"]:
    """Grow or shrink the classes of a label map, one after the other: a later one covers what it grows over.

    Then components of them are taken away. What a class leaves becomes background. Networks err at borders and miss
    parts; a second one must not copy them (Isensee 2021).
    """
    for number, distortion in enumerate(distortions, start=1):
        if not distortion.steps:
            continue
        before = labels == number
        after = before[None, None].to(labels.dtype)
        for dilates in distortion.steps:
            after = _dilate(after, distortion.radius) if dilates else 1 - _dilate(1 - after, distortion.radius)
        grown = after[0, 0] > 0
        labels = labels.masked_fill(before & ~grown, 0).masked_fill(grown, number)
    for number, distortion in enumerate(distortions, start=1):
        if distortion.removed is not None:
            labels = labels.masked_fill(_find_component(labels == number, distortion.removed), 0)
    return labels


def _find_component(mask: Bool[Tensor, " *patch"], place: float) -> Bool[Tensor, " *patch"]:
    """Find the component at ``place``, from 0 to 1, among those that are small enough; of none, nothing is True.

    Neighbours across corners are of one component.
    """
    from scipy import ndimage

    components, count = ndimage.label(mask.cpu().numpy(), np.ones((3,) * mask.ndim))
    sizes = np.bincount(components.ravel(), minlength=count + 1)[1:]
    small = 1 + np.flatnonzero(sizes < LARGEST_REMOVED * mask.numel())
    chosen = small[min(int(place * len(small)), len(small) - 1)] if len(small) else -1
    return torch.from_numpy(components == chosen).to(mask.device)


def _dilate(x: Tensor, radius: int) -> Tensor:
    """Dilate (1, 1, *patch) by a cube; outside the patch nothing grows."""
    pool = F.max_pool2d if x.ndim == 4 else F.max_pool3d
    return pool(x, 2 * radius + 1, stride=1, padding=radius)
