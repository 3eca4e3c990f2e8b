"""Exports of the registry: a network that cannot be exported is named with the remedy."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from data_pipelines.errors import UserError
from flows.config.specs import RegistrySpec
from flows.registry.register import write_exports
from unet_models.formats.trace import trace_unet
from unet_models.networks.unet import UNet
from unet_models.specs.networks import UNetSpec


def test_a_network_that_cannot_be_exported_is_named_with_the_remedy(tmp_path: Path) -> None:
    network = UNet(UNetSpec(channels=(4, 8)), 1, 2, ndim=2).to(torch.bfloat16)
    with pytest.raises(
        UserError, match=r"(?s)unet cannot .* float32 on the CPU, got .*bfloat16.*registry\.export=\[\]"
    ):
        write_exports(tmp_path, {"unet": lambda: trace_unet(network, 1, 2)}, RegistrySpec())
