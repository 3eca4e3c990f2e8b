"""Calibration against closed forms and torchmetrics."""

from __future__ import annotations

import math

import pytest
import torch
from torchmetrics.functional.classification import binary_calibration_error

from unet_models.metrics.calibration import (
    NUM_BINS,
    Voxels,
    fit_temperatures,
    measure_reliability,
    negative_log_likelihood,
)


def draw(logits: torch.Tensor, *, is_exclusive: bool = True) -> Voxels:
    """Draw the truth from the probabilities of ``logits``: they are calibrated."""
    generator = torch.Generator().manual_seed(0)
    if is_exclusive:
        numbers = logits.softmax(1).multinomial(1, generator=generator)[:, 0]
        truth = torch.nn.functional.one_hot(numbers, logits.shape[1]).bool()
    else:
        truth = torch.rand(logits.shape, generator=generator) < logits.sigmoid()
    return Voxels(logits, truth, torch.ones(len(logits)))


def noise(outputs: int, count: int = 20_000) -> torch.Tensor:
    return 2 * torch.randn(count, outputs, generator=torch.Generator().manual_seed(1))


def test_the_error_is_the_distance_of_probability_and_frequency() -> None:
    """Two of four voxels of 0.8 belong to the class, and none of the one of 0.1, which weighs as much as four."""
    logits = torch.tensor([0.8, 0.8, 0.8, 0.8, 0.1]).logit()[:, None]
    truth = torch.tensor([True, True, False, False, False])[:, None]
    voxels = Voxels(logits, truth, torch.tensor([1.0, 1, 1, 1, 4]))
    reliability = measure_reliability(voxels, is_exclusive=False)
    assert float(reliability.error) == pytest.approx(0.5 * 0.3 + 0.5 * 0.1, rel=1e-5)
    filled = [int(0.1 * NUM_BINS), int(0.8 * NUM_BINS)]
    assert reliability.share[0, filled].tolist() == [0.5, 0.5]
    assert reliability.observed[0, filled].tolist() == [0, 0.5]
    assert int(reliability.predicted.isnan().sum()) == NUM_BINS - 2


@pytest.mark.parametrize("is_exclusive", [True, False])
def test_the_error_is_that_of_torchmetrics(is_exclusive: bool) -> None:
    logits, other = noise(3, 2000), noise(4, 2000)[:, :3]
    voxels = Voxels(logits, draw(other, is_exclusive=is_exclusive).truth, torch.ones(2000))
    errors = measure_reliability(voxels, is_exclusive=is_exclusive).error
    probabilities = logits.double().softmax(1) if is_exclusive else logits.double().sigmoid()
    for place, error in enumerate(errors):
        theirs = binary_calibration_error(
            probabilities[:, place].contiguous(), voxels.truth[:, place].long(), NUM_BINS, "l1"
        )
        assert float(error) == pytest.approx(float(theirs), abs=1e-6)


@pytest.mark.parametrize(("is_exclusive", "true"), [(True, (3.0, 1.0, 0.5)), (False, (3.0, 1.0, 0.5))])
def test_known_temperatures_are_found(is_exclusive: bool, true: tuple[float, ...]) -> None:
    """Logits from which calibrated ones are made by these temperatures."""
    own = noise(3)
    evidence = own.log_softmax(1) if is_exclusive else own
    calibrated = draw(evidence / torch.tensor(true), is_exclusive=is_exclusive)
    voxels = Voxels(own, calibrated.truth, calibrated.weights)
    found = fit_temperatures(voxels, is_exclusive=is_exclusive)
    assert found == pytest.approx(true, rel=0.06)
    before, after = (measure_reliability(voxels, t, is_exclusive=is_exclusive).error for t in ((), found))
    assert float(after.max()) < 0.015 < 0.04 < float(before.max())
    losses = [negative_log_likelihood(voxels, t, is_exclusive=is_exclusive) for t in ((), true, found)]
    assert losses[2] <= losses[1] < losses[0]


def test_a_voxel_of_twice_the_weight_counts_as_two() -> None:
    voxels = draw(noise(2, 300))
    twice = Voxels(voxels.logits, voxels.truth, 1 + torch.arange(300.0) % 2)
    repeated = torch.arange(300).repeat_interleave(1 + torch.arange(300) % 2)
    listed = Voxels(voxels.logits[repeated], voxels.truth[repeated], torch.ones(len(repeated)))
    assert fit_temperatures(twice) == pytest.approx(fit_temperatures(listed), rel=0.01)
    assert fit_temperatures(twice) != pytest.approx(fit_temperatures(voxels), rel=0.02)
    assert negative_log_likelihood(twice) == pytest.approx(negative_log_likelihood(listed))


def test_classes_that_nothing_contradicts_keep_finite_temperatures() -> None:
    """A network that is always right; and one whose third class is never there."""
    truth = torch.eye(3, dtype=torch.bool).repeat(10, 1)
    right = fit_temperatures(Voxels(2.0 * truth, truth, torch.ones(30)))
    inverse = 1 / right[0]  # where the slope of log(1 + 2 exp(-2 a)) is that of the pull, of a thirtieth for each class
    assert 4 * math.exp(-2 * inverse) / (1 + 2 * math.exp(-2 * inverse)) == pytest.approx(0.1 * (1 - 1 / inverse), 1e-2)
    assert right == (right[0],) * 3
    absent = draw(noise(2, 500))
    logits = torch.cat([absent.logits, torch.full((500, 1), -30.0)], dim=1)
    truth = torch.cat([absent.truth, torch.zeros(500, 1, dtype=torch.bool)], dim=1)
    assert fit_temperatures(Voxels(logits, truth, torch.ones(500)))[2] == pytest.approx(1, abs=0.05)
