"""Probabilities of logits: closed forms."""

from __future__ import annotations

import math

import pytest
import torch

from unet_models.sampling.probabilities import calibrated_probabilities, normalised_entropy


def test_temperatures_divide_log_probabilities_whatever_constant_is_added() -> None:
    raw = torch.tensor([0.5, 0.3, 0.2])
    powers = torch.tensor([0.5 ** (1 / 2), 0.3, 0.2 ** (1 / 0.5)])
    for constant in (0.0, 7.0):
        got = calibrated_probabilities(raw.log() + constant, (2.0, 1.0, 0.5))
        torch.testing.assert_close(got, powers / powers.sum())
    torch.testing.assert_close(calibrated_probabilities(raw.log()), raw)


def test_regions_have_a_sigmoid_and_a_temperature_each() -> None:
    logits = torch.tensor([[math.log(9), 0.0], [-2.0, 2.0]])  # (voxels, regions)
    got = calibrated_probabilities(logits, (2.0, 1.0), is_exclusive=False, dim=1)
    torch.testing.assert_close(got[:, 0], torch.tensor([0.75, 1 / (1 + math.e)]))
    torch.testing.assert_close(got[:, 1], torch.tensor([0.5, 1 / (1 + math.exp(-2))]))


@pytest.mark.parametrize(
    ("probabilities", "is_exclusive", "expected"),
    [
        ([0.25] * 4, True, 1.0),
        ([1.0, 0.0, 0.0], True, 0.0),
        ([0.5, 0.5, 0.0], True, math.log(2) / math.log(3)),
        ([0.5, 1.0], False, 0.5),
    ],
)
def test_entropy_is_a_share_of_its_maximum(probabilities: list[float], is_exclusive: bool, expected: float) -> None:
    entropy = normalised_entropy(torch.tensor(probabilities), is_exclusive=is_exclusive)
    assert float(entropy) == pytest.approx(expected)
