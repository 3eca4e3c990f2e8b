"""Fixtures of the tests of networks and metrics."""

from __future__ import annotations

import pytest
import torch

from unet_models.networks.inception import FIDInception


@pytest.fixture(scope="session")
def inception() -> FIDInception:
    """Random weights that keep the scale of what passes, so that the last features still differ between images."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        built = FIDInception()
        for name, tensor in built.state_dict().items():
            if name.endswith("conv.weight"):
                torch.nn.init.kaiming_normal_(tensor, nonlinearity="relu")
            elif name.endswith("running_mean"):
                tensor.normal_(std=0.1)
    return built.eval().requires_grad_(False)
