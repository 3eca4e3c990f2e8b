"""Helpers that Ray starts beside the workers of a training."""

from __future__ import annotations

import pytest
import ray.train
from ray.train.torch import TorchTrainer

from flows.training.ray_trainer import DATASETS, RESERVATIONS, RayTrainer


def names_of(trainer: TorchTrainer) -> list[str]:
    """Return the names of Ray's callbacks in order."""
    return [type(each).__name__ for each in trainer._create_default_callbacks()]


@pytest.mark.parametrize(("has_api_server", "left_out"), [(True, {DATASETS}), (False, {DATASETS, RESERVATIONS})])
def test_only_unused_helpers_are_left_out(has_api_server: bool, left_out: set[str]) -> None:
    """The names are those of this Ray, and everything else stays, in its order."""
    scaling = ray.train.ScalingConfig(num_workers=1)
    names = names_of(TorchTrainer(print, scaling_config=scaling))
    assert left_out <= set(names)
    found = names_of(RayTrainer(print, scaling_config=scaling, has_api_server=has_api_server))
    assert found == [name for name in names if name not in left_out]
