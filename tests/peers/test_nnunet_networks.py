"""Networks beside nnU-Net's own, whose weights they are given as the import converts them (`make test-peers`)."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from flows.pipelines.segmentation.nnunet.plans import network_spec
from tests.support.exports import perturbed
from tests.support.nnunet import architecture
from tests.support.twins import CLOSE
from unet_models.formats.nnunet import convert_weights
from unet_models.networks.build import build_network
from unet_models.specs.networks import UNetSpec

networks = pytest.importorskip("nnunetv2.utilities.get_network_from_plans")

PLANNED = {"channels", "strides", "num_blocks", "num_decoder_blocks", "kernel_size", "deep_supervision"}
"""Fields that a plan sets; the others are those of the preset."""
SIZES: dict[str, tuple[int, tuple[int, ...], dict[str, Any]]] = {
    "2-D": (2, (16, 24), {}),
    "2-D, a stride and a kernel per axis": (
        2,
        (8, 24),
        {"strides": [[1, 1], [1, 2], [2, 2]], "kernels": [[1, 3], [3, 3], [5, 3]]},
    ),
    "3-D": (3, (8, 16, 12), {}),
    "3-D, thick slices": (
        3,
        (6, 16, 12),
        {"strides": [[1, 1, 1], [1, 2, 2], [2, 2, 2]], "kernels": [[1, 3, 3], [3, 3, 3], [3, 3, 3]]},
    ),
}


@pytest.mark.parametrize("name", SIZES)
@pytest.mark.parametrize("preset", ["nnunet", "residual_encoder"])
def test_the_network_is_that_of_nnunet(preset: str, name: str) -> None:
    """``PlainConvUNet`` and ``ResidualEncoderUNet``: every head in training, full resolution in evaluation."""
    ndim, size, planned = SIZES[name]
    described = architecture(ndim, residual=preset == "residual_encoder", **planned)
    twin = perturbed(
        networks.get_network_from_plans(
            described["network_class_name"],
            described["arch_kwargs"],
            described["_kw_requires_import"],
            2,
            3,
            deep_supervision=True,
        )
    )
    fields = network_spec(described).model_dump(include=PLANNED)
    # The preset is of nnU-Net 1, whose transposed convolutions had no bias.
    model = build_network(UNetSpec(preset=preset, upsample_bias=True, **fields), 2, 3, ndim)
    model.load_state_dict(convert_weights(twin.state_dict(), model.state_dict()))
    images = torch.randn(2, 2, *size)
    expected = twin.train()(images)
    assert len(expected) == 2
    for ours, theirs in zip(model.train()(images), expected, strict=True):
        torch.testing.assert_close(ours, theirs, **CLOSE)
    torch.testing.assert_close(model.eval()(images), expected[0], **CLOSE)
