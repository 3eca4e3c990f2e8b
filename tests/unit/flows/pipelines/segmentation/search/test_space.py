from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from flows.pipelines.segmentation.search.space import SEGMENTATION_SPACE, apply, choices, num_halvings, strides
from flows.pipelines.segmentation.task import SegmentationTask
from flows.tuning.space import changed_task, draw
from tests.support.volumes import numbered
from unet_models.networks.build import build_network
from unet_models.specs.networks import UNetSpec
from unet_models.specs.segmentation import TrainSpec

SPEC = TrainSpec(patch_size=(32, 16))


@pytest.mark.parametrize(("size", "count"), [(32, 3), (16, 2), (40, 3), (8, 1), (7, 0), (4, 0), (56, 3)])
def test_an_axis_is_halved_while_four_voxels_are_left(size: int, count: int) -> None:
    """40 to 20, 10, 5: the next half would not be whole; 56 to 28, 14, 7."""
    assert num_halvings(size) == count


def test_a_short_axis_is_halved_less_often() -> None:
    assert strides((32, 16), 4) == [[2, 2], [2, 2], [2, 1]]


def test_chosen_values_change_the_network_and_nothing_else() -> None:
    changed = apply(SPEC, {"width": 12, "depth": 4, "block": "residual", "skip": "add", "learning_rate": 1e-3})
    assert changed.model.channels == (12, 24, 48, 96)
    assert (changed.model.block, changed.model.skip, changed.optimizer.learning_rate) == ("residual", "add", 1e-3)
    assert changed.model_copy(update={"model": SPEC.model, "optimizer": SPEC.optimizer}) == SPEC
    assert apply(SPEC, {}) == SPEC


PLANNED = TrainSpec(
    patch_size=(8, 32, 32),
    model=UNetSpec(
        channels=(16, 32, 64),
        strides=((1, 2, 2), (2, 2, 2)),
        kernel_size=((1, 3, 3), 3, 3),
        num_blocks=(1, 3, 4),
        num_decoder_blocks=(1, 2),
        skip=("concat", "gated"),
        deep_supervision=1,
    ),
)
"""As the planner writes it for thick slices."""


def test_another_width_changes_the_channels_alone() -> None:
    changed = apply(PLANNED, {"width": 8}).model
    assert changed == PLANNED.model.model_copy(update={"channels": (8, 16, 32)})


def test_another_depth_cuts_what_each_stage_has_or_goes_on_with_the_last() -> None:
    shallow, deep = (apply(PLANNED, {"depth": depth}).model for depth in (2, 4))
    cut: dict[str, Any] = {"channels": (16, 32), "strides": ((1, 2, 2),), "kernel_size": ((1, 3, 3), 3)}
    cut |= {"num_blocks": (1, 3), "num_decoder_blocks": (1,), "skip": ("concat",), "deep_supervision": 0}
    assert shallow == PLANNED.model.model_copy(update=cut)
    longer: dict[str, Any] = {"channels": (16, 32, 64, 128), "strides": ((1, 2, 2), (2, 2, 2), (1, 2, 2))}
    longer |= {"kernel_size": ((1, 3, 3), 3, 3, 3), "num_blocks": (1, 3, 4, 4), "num_decoder_blocks": (1, 2, 2)}
    assert deep == PLANNED.model.model_copy(update=longer | {"skip": ("concat", "gated", "gated")})


def test_the_example_of_valid_convolutions_has_their_border() -> None:
    spec = TrainSpec(patch_size=(36, 36), model=UNetSpec(preset="unet_2015", channels=(4, 8)))
    task = SegmentationTask(spec=spec, index_uri="", shards_uri="", num_channels=1, labels=numbered("background", "a"))
    network = build_network(spec.model, 1, 2, ndim=2).eval()
    with torch.no_grad():
        assert network(*SEGMENTATION_SPACE.example(task)).shape == (1, 2, 36, 36)


def test_no_stage_is_wider_than_320() -> None:
    wide = TrainSpec(patch_size=(128, 128))
    assert apply(wide, {"width": 32, "depth": 6}).model.channels == (32, 64, 128, 256, 320, 320)


@pytest.mark.parametrize("number", range(1, 25))
def test_drawn_networks_are_built(number: int) -> None:
    """Every one that is drawn takes a patch, whatever block and depth go together."""
    spec = SPEC.model_copy(update={"patch_size": (16, 16)})
    task = SegmentationTask(spec=spec, index_uri="", shards_uri="", num_channels=1, labels=numbered("background", "a"))
    values = draw(choices(spec), (), 0, number)
    changed = changed_task(task, SEGMENTATION_SPACE, values)
    assert isinstance(changed, SegmentationTask)
    network = build_network(changed.spec.model, 1, 2, ndim=2).eval()
    with torch.no_grad():
        assert network(*SEGMENTATION_SPACE.example(changed)).shape == (1, 2, 16, 16)
    assert math.prod(stride[0] for stride in changed.spec.model.strides or ()) <= 4  # type: ignore[misc, index]
