"""Every member of the segmentation family: parameters, shapes, gradients, export, weights as a file, compilation."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from tests.support.counts import (
    documented,
    gates,
    inverted_residual,
    nested,
    num_parameters,
    plain,
    residual,
    separable,
    shuffle,
    unet,
)
from tests.support.exports import assert_equal, perturbed, written
from tests.support.gradients import check_gradients, subtracted
from tests.support.members import MEMBERS, small
from unet_models.formats.trace import trace_unet
from unet_models.networks.build import build_network
from unet_models.networks.unet import UNet
from unet_models.specs.networks import UNetSpec

VGG = 14_714_688 + (9 * 512 + 1) * 512 + 2 * (64 * 2 + 128 * 2 + 256 * 3 + 512 * 7)
"""Parameters of FCN's encoder: convolutions of VGG-16, one more below them, and normalisation after each."""
WIDE, LIGHT, MOBILE = (64, 128, 256, 512, 1024), (32, 64, 128, 256, 512), (16, 24, 32, 64, 96)
UNET, VOLUMES = unet(plain, WIDE, 1, 2), unet(partial(plain, ndim=3), (32, 64, 128, 256), 1, 3, ndim=3)
COUNTS: list[tuple[dict[str, object], int, int, int, int]] = [
    ({"preset": "fcn_32s"}, 3, 21, 2, VGG + 1 * (512 + 1) * 21),
    ({"preset": "fcn_16s"}, 3, 21, 2, VGG + 2 * (512 + 1) * 21),
    ({"preset": "fcn_8s"}, 3, 21, 2, VGG + 3 * (512 + 1) * 21),
    # Another 31,031,685 is often quoted, of an implementation that ends in a convolution to 2 channels and one to 1.
    ({"preset": "unet_2015"}, 1, 2, 2, 31_031_685 - (64 * 9 * 2 + 2) - (2 + 1) + (64 + 1) * 2),
    ({"preset": "unet"}, 1, 2, 2, UNET),
    # 1x1 in place of 2x2 convolutions: three quarters of those weights are gone.
    ({"preset": "unet", "upsample": "linear"}, 1, 2, 2, UNET - 3 * (512 + 128 + 32 + 8) * 1024),
    ({"preset": "resunet"}, 1, 2, 2, unet(residual, WIDE, 1, 2)),
    ({"preset": "attention_unet"}, 1, 2, 2, UNET + gates(WIDE)),
    ({"preset": "unet_plus_plus"}, 1, 2, 2, nested(LIGHT, 1, 2)),
    # Transposed convolutions without biases; heads of three resolutions.
    ({"preset": "nnunet"}, 1, 3, 3, VOLUMES - (32 + 64 + 128) + (64 + 1 + 128 + 1) * 3),
    ({"preset": "residual_encoder"}, 1, 2, 3, 102_349_770),  # nnU-Net's network has the same weights (tests/peers)
    ({"preset": "mednext_s"}, 1, 2, 3, 5_551_816),  # Roy 2023, table 3: 5.6 M, 10.5 M, 17.6 M, 61.8 M
    ({"preset": "mednext_b"}, 1, 2, 3, 10_527_208),
    ({"preset": "mednext_m"}, 1, 2, 3, 17_549_864),
    ({"preset": "mednext_l"}, 1, 2, 3, 61_780_168),
    ({"preset": "mednext_l", "kernel_size": 5}, 1, 2, 3, 62_993_800),  # 63.0 M
    ({"preset": "mobile_unet"}, 1, 2, 2, unet(inverted_residual, MOBILE, 1, 2, joined=1)),
    ({"preset": "shuffle_unet"}, 1, 2, 2, unet(shuffle, LIGHT, 1, 2)),
    ({"preset": "separable_unet"}, 1, 2, 2, unet(separable, LIGHT, 1, 2)),
]
"""Fields, channels, classes, axes and parameters."""

ALIKE = ("fcn_32s", "fcn_16s", "mednext_b", "mednext_m", "mednext_l")
"""Members whose graphs have the operators of another one's."""


def images_for(network: UNet, batch: int, channels: int, size: tuple[int, ...]) -> Tensor:
    """Noise of a size, or with valid convolutions of the smallest sizes from it on that fit."""
    if any(network.border):
        parts = zip(size, network.border, network.remainder, network.divisor, strict=True)
        size = tuple(n + 2 * border + (remainder - n - 2 * border) % step for n, border, remainder, step in parts)
    return torch.randn(batch, channels, *size)


@pytest.mark.parametrize(("fields", "channels", "classes", "ndim", "count"), COUNTS)
def test_number_of_parameters(fields: dict[str, object], channels: int, classes: int, ndim: int, count: int) -> None:
    with torch.device("meta"):
        network = build_network(UNetSpec.model_validate(fields), channels, classes, ndim)
    assert num_parameters(network) == count


@pytest.mark.parametrize("name", MEMBERS)
def test_the_page_has_the_counts_of_every_member(name: str) -> None:
    """Variants share a row of docs/networks.md, which has the counts of all of them and no other."""
    counts: dict[str, set[int]] = {}
    for fields, *_, count in COUNTS:
        counts.setdefault(str(fields["preset"]), set()).add(count)
    assert counts.keys() == set(MEMBERS)
    row = documented(name)
    assert row == set().union(*(counts[other] for other in MEMBERS if documented(other) == row))


@pytest.mark.parametrize("ndim", [2, 3])
@pytest.mark.parametrize("name", MEMBERS)
def test_one_voxel_over_a_multiple(name: str, ndim: int) -> None:
    """Gradients of all outputs reach every parameter that changes one; logits of the image's size."""
    spec = small(name)
    network = perturbed(build_network(spec, 2, 3, ndim))
    images = images_for(network, 2, 2, (9, 13, 8)[:ndim])
    check_gradients(network, [images], subtracted(spec, network))
    logits = network.eval()(images)
    assert logits.shape == (2, 3, *(n - 2 * border for n, border in zip(images.shape[2:], network.border, strict=True)))
    assert logits.isfinite().all()


@pytest.mark.parametrize("name", [name for name in MEMBERS if name not in ALIKE])
def test_files_compute_what_the_network_does(name: str, tmp_path: Path) -> None:
    """ONNX, ``torch.export`` and the state dict of a second network, at a size it was not traced with."""
    ndim = 3 if name in ("nnunet", "mednext_s") else 2
    spec = small(name, (4, 8)).model_copy(update={"num_blocks": 1, "num_decoder_blocks": 1})
    network = perturbed(build_network(spec, 1, 2, ndim)).eval()
    save_file(network.state_dict(), tmp_path / "weights.safetensors")
    again = build_network(spec, 1, 2, ndim).eval()
    again.load_state_dict(load_file(tmp_path / "weights.safetensors"))
    runs = written(trace_unet(network, 1, 2), tmp_path) | {"state dict": lambda images: again(images)}
    assert_equal(runs, network, {"images": images_for(network, 3, 1, (8, 12, 6)[:ndim])})


def test_compiled_it_computes_the_same() -> None:
    """One graph, without breaks, forward and backward; sizes that are padded, too."""
    network = perturbed(build_network(small("attention_unet"), 1, 2, 2))
    compiled = torch.compile(network, backend="aot_eager", fullgraph=True)
    images = torch.randn(2, 1, 9, 13)

    def gradients(model: object) -> tuple[Tensor, ...]:
        assert callable(model)
        return torch.autograd.grad(model(images).square().sum(), list(network.parameters()))

    torch.testing.assert_close(gradients(compiled), gradients(network), rtol=1e-4, atol=1e-4)


def test_fields_beside_a_preset_win() -> None:
    spec = UNetSpec(preset="mednext_b", kernel_size=5, skip="concat")
    assert (spec.block, spec.expansion, spec.kernel_size, spec.skip) == ("mednext", (2, 3, 4, 4, 4), 5, "concat")
    assert UNetSpec.model_validate_json(spec.model_dump_json()) == spec


def test_settings_per_stage_need_one_for_each() -> None:
    with pytest.raises(ValueError, match="expansion: need one value, or 3 for 3 stages, got 5"):
        UNetSpec(preset="mednext_b", channels=(4, 6, 8), deep_supervision=0)
