"""What is read around a patch: by hand, and wide enough that rotated and scaled patches are not filled with zeros."""

from __future__ import annotations

import math

import pytest
import torch

from unet_models.specs.segmentation import AugmentSpec
from unet_models.training.augment import augment
from unet_models.training.reach import augmentation_margin

NOTHING = AugmentSpec.nothing()


def with_only(**fields: object) -> AugmentSpec:
    return NOTHING.model_copy(update=fields)


@pytest.mark.parametrize(
    ("size", "spec", "margin"),
    [
        ((40, 56, 40), NOTHING, (0, 0, 0)),
        ((10, 20), with_only(p_scale=1, scale=(0.5, 2.0)), (5, 10)),  # twice as large
        ((10, 20), with_only(p_scale=1, scale=(1.5, 2.0)), (0, 0)),  # enlarging reads less
        ((20, 20), with_only(p_rotate=1, rotate_degrees=180), (5, 5)),  # the diagonal: 28.3
        ((20, 20), with_only(p_rotate=1, rotate_degrees=30), (4, 4)),  # 20 cos 30 + 20 sin 30 = 27.3
        ((100, 1, 1), with_only(p_rotate=1, rotate_degrees=30), (1, 25, 25)),  # sin 30 of 100
        ((100, 100, 8), with_only(p_rotate=1, rotate_degrees=90, coarse_axis=2), (21, 21, 0)),
        ((100, 100, 8), with_only(p_scale=1, scale=(0.5, 1.0), coarse_axis=2), (50, 50, 0)),
    ],
)
def test_margins_by_hand(size: tuple[int, ...], spec: AugmentSpec, margin: tuple[int, ...]) -> None:
    assert augmentation_margin(size, spec) == margin


@pytest.mark.parametrize("size", [(32, 24), (16, 24, 16)])
def test_rotated_and_scaled_patches_hold_next_to_no_fill(size: tuple[int, ...]) -> None:
    spec = AugmentSpec().model_copy(update={"p_rotate": 1.0, "p_scale": 1.0})
    shares = {}
    for name, margin in (("without", (0,) * len(size)), ("with", augmentation_margin(size, spec))):
        read = [n + 2 * m for n, m in zip(size, margin, strict=True)]
        masks = torch.ones(40, *read, dtype=torch.uint8)  # where there is tissue; images play no part
        _, got = augment(masks[:, None].float(), masks, list(range(40)), 0, 0, size, spec)
        shares[name] = 1 - got.float().mean().item()
    assert shares["without"] > 0.05
    assert shares["with"] < 0.01
    assert math.isfinite(shares["with"])
