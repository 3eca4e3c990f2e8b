"""Helpers that Ray starts beside the workers of a training."""

from __future__ import annotations

import ray.train
from ray.train.torch import TorchTrainer

from flows.training.ray_trainer import UNUSED, RayTrainer


def names_of(trainer: TorchTrainer) -> list[str]:
    """Return the names of Ray's callbacks in order."""
    return [type(each).__name__ for each in trainer._create_default_callbacks()]


def test_only_unused_helpers_are_left_out() -> None:
    """The names are those of this Ray, and everything else stays, in its order."""
    scaling = ray.train.ScalingConfig(num_workers=1)
    names = names_of(TorchTrainer(print, scaling_config=scaling))
    assert set(names) >= UNUSED
    found = names_of(RayTrainer(print, scaling_config=scaling))
    assert found == [name for name in names if name not in UNUSED]
