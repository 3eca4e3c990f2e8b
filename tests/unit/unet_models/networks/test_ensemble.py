"""An ensemble is one network whose probabilities are the mean of its members'."""

from __future__ import annotations

import math

import pytest
import torch

from unet_models.formats.trace import trace_unet
from unet_models.networks.build import build_network
from unet_models.networks.ensemble import Disagreement, Ensemble
from unet_models.specs.networks import UNetSpec


def ensemble(*, is_exclusive: bool = True) -> Ensemble:
    torch.manual_seed(0)
    members = [build_network(UNetSpec(channels=(4, 6)), 1, 3, ndim=2) for _ in range(3)]
    return Ensemble(members, is_exclusive=is_exclusive).eval()  # type: ignore[return-value]  # eval returns a Module


@pytest.mark.parametrize("is_exclusive", [True, False])
def test_probabilities_are_the_mean_of_the_members(is_exclusive: bool) -> None:
    network, images = ensemble(is_exclusive=is_exclusive), torch.randn(2, 1, 8, 11) * 5
    probabilities = (lambda x: x.softmax(dim=1)) if is_exclusive else torch.sigmoid
    mean = torch.stack([probabilities(member(images)) for member in network.members]).mean(dim=0)
    torch.testing.assert_close(probabilities(network(images)), mean)


def test_logits_are_averaged_where_asked_for() -> None:
    members = [build_network(UNetSpec(channels=(4, 8)), 1, 3, ndim=2).eval() for _ in range(3)]
    images = torch.randn(2, 1, 8, 8)
    expected = torch.stack([member(images) for member in members]).mean(0)
    torch.testing.assert_close(Ensemble(members, averages_logits=True)(images), expected)


def test_certain_members_stay_finite() -> None:
    """Logits of hundreds: probabilities are 0 and 1 in float32, their logits are not."""
    network, images = ensemble(is_exclusive=False), torch.randn(1, 1, 8, 8)
    for member in network.members:
        member.decoder.heads[0].weight.data *= 1e4  # type: ignore[union-attr, operator, index]
    assert network(images).isfinite().all()
    assert network(images).abs().max() > 100


@pytest.mark.parametrize("is_exclusive", [True, False])
def test_members_are_averaged_one_by_one(is_exclusive: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Logits of all members at once would take the memory of as many; disagreement alone needs them."""
    network, images = ensemble(is_exclusive=is_exclusive), torch.randn(2, 1, 8, 8)
    together = network.average(network.predict_members(images))
    torch.testing.assert_close(Disagreement(network)(images)[:, :3], together)
    monkeypatch.setattr(Ensemble, "predict_members", lambda *_: pytest.fail("all members at once"))
    torch.testing.assert_close(network(images), together)


def test_unlikely_classes_have_their_logarithm() -> None:
    """Log-probabilities of -300: as exponentials they are 0 in float32."""
    logits = torch.tensor([[[[0.0], [-300.0]]], [[[0.0], [-310.0]]]])
    found = Ensemble(list(ensemble().members)[:2]).average(logits)  # type: ignore[arg-type]
    torch.testing.assert_close(found[0, 1], torch.tensor([-300.0 - math.log(2) + math.log1p(math.exp(-10))]))


def test_an_ensemble_is_exported_as_one_graph() -> None:
    network, images = ensemble(), torch.randn(1, 1, 16, 12)
    program = trace_unet(network, 1, 3).program.module()
    torch.testing.assert_close(program(images=images), network(images))
