"""Weights are taken where name, shape and kind of numbers agree; everything else is named with its reason."""

from __future__ import annotations

import re

import pytest
import torch

from data_pipelines.errors import WeightsError
from unet_models.training.transfer import match_weights

FOUND = {
    "stem": torch.full((2, 3), 0.5, dtype=torch.float16),
    "head": torch.ones(4, 2),
    "count": torch.ones(2),
    "extra": torch.zeros(1),
}
OWN = {
    "stem": torch.empty(2, 3, device="meta"),
    "head": torch.empty(5, 2, device="meta"),
    "count": torch.empty(2, dtype=torch.int64, device="meta"),
    "new": torch.empty(3, device="meta"),
}


def test_what_fits_is_taken_in_the_networks_type_and_the_rest_is_named() -> None:
    done = match_weights("a file", FOUND, OWN)
    assert {name: (tensor.dtype, tensor.tolist()) for name, tensor in done.taken.items()} == {
        "stem": (torch.float32, [[0.5] * 3] * 2)
    }
    assert done.reinitialised == {
        "head": "4x2 there, 5x2 here",
        "count": "torch.float32 there, torch.int64 here",
        "new": "not in the file",
    }
    assert done.unused == ("extra",)
    assert done.share == 6 / 21


def test_what_is_refused_is_not_taken_though_it_fits() -> None:
    own = {"stem": FOUND["stem"].float(), "head": FOUND["head"]}
    done = match_weights("a file", FOUND, own, (re.compile("head"), "other classes"))
    assert (list(done.taken), done.reinitialised) == (["stem"], {"head": "other classes"})


@pytest.mark.parametrize(
    ("own", "said"),
    [
        ({"head": torch.empty(5, 2)}, r"1 have its names and other shapes, such as head \(4x2 there, 5x2 here\)"),
        ({"x.weight": torch.empty(1)}, r"they are named stem, head, count, \.\.\., the network's x\.weight"),
    ],
)
def test_nothing_that_fits_is_an_error(own: dict[str, torch.Tensor], said: str) -> None:
    with pytest.raises(WeightsError, match=rf"a file: none of its 4 weights fits the network: {said}"):
        match_weights("a file", FOUND, own)


def test_only_what_is_taken_must_be_finite() -> None:
    broken = FOUND | {"head": torch.full((4, 2), torch.nan)}
    match_weights("a file", broken, OWN)
    with pytest.raises(WeightsError, match="a file: 1 weights hold NaN or infinity: head"):
        match_weights("a file", broken, OWN | {"head": torch.empty(4, 2)})
