"""Blocks and skip connections of a caller: the example of docs/networks.md, and where they are used."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch

from data_pipelines.errors import ConfigError
from tests.support import counts
from tests.support.gradients import check_gradients
from tests.support.project import CHECKOUT
from unet_models.networks.blocks import plain, residual
from unet_models.networks.build import build_network
from unet_models.networks.parts import Parts
from unet_models.networks.skips import SkipConnection
from unet_models.networks.unet import UNet
from unet_models.specs.networks import UNetSpec


def documented() -> dict[str, Any]:
    """Run the page's example."""
    page = (CHECKOUT / "docs" / "networks.md").read_text()
    (code,) = (code for code in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "class Difference" in code)
    names: dict[str, Any] = {}
    exec(code, names)
    return names


def test_the_documented_network_learns() -> None:
    network: UNet = documented()["network"]
    stages = documented()["Stage"]
    assert {type(stage).__name__ for stage in [*network.encoder.stages, *network.decoder.stages]} == {stages.__name__}
    assert [type(skip).__name__ for skip in network.decoder.skips] == ["Difference"] * 2
    logits = network(torch.randn(1, 1, 9, 14))
    assert logits.shape == (1, 2, 9, 14)
    check_gradients(network, [torch.randn(2, 1, 9, 14)])


def test_the_documented_network_is_as_large_as_the_page_says() -> None:
    """Two convolutions per stage; a decoder stage is given the difference, which has the channels of its level."""
    count = counts.unet(lambda i, o: (9 * i + 1) * o + (9 * o + 1) * o, (16, 32, 64), 1, 2, joined=1)
    assert counts.num_parameters(documented()["network"]) == count
    assert counts.documented("parts") == {count}


@pytest.mark.parametrize("decoder", ["unet", "nested"])
def test_each_block_goes_where_it_belongs(decoder: str) -> None:
    """Plain stages in place of residual ones: what they lack are the shortcuts of their side."""
    spec = UNetSpec(channels=(2, 3, 4), block="residual", decoder=decoder)

    def shortcuts(parts: Parts | None) -> set[str]:
        names = (name.split(".") for name, _ in build_network(spec, 1, 2, 2, parts).named_parameters())
        return {name[0] for name in names if "shortcut" in name}

    assert shortcuts(None) == {"encoder", "decoder"}
    assert shortcuts(Parts.of(spec, decoder_block=plain)) == {"encoder"}
    assert shortcuts(Parts.of(spec, encoder_block=plain)) == set()
    assert shortcuts(Parts.of(spec, encoder_block=plain, decoder_block=residual)) == {"decoder"}


def test_parts_that_the_decoder_has_no_place_for_are_refused() -> None:
    for decoder, parts, named in [
        ("nested", {"skip": SkipConnection}, "skip"),
        ("fcn", {"skip": SkipConnection, "decoder_block": plain}, "skip and decoder_block"),
    ]:
        spec = UNetSpec(channels=(2, 3), decoder=decoder, skip="add" if decoder == "fcn" else "concat")
        with pytest.raises(ConfigError, match=f"{named}: decoder {decoder} has no place for it"):
            Parts.of(spec, **parts)
