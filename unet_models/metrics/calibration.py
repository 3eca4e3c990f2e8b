"""Calibration: do probabilities say how often they are right? And temperatures after which they do."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from unet_models.sampling.probabilities import calibrated_probabilities

NUM_BINS = 15
"""Bins of equal width between 0 and 1, as in Guo 2017."""
MAX_STEPS, TOLERANCE = 50, 1e-12
"""Newton's method ends where a step promises less than this many nats."""


@dataclass(frozen=True, slots=True)
class Voxels:
    """Voxels that stand for those of all cases."""

    logits: Float[Tensor, "voxels outputs"]
    truth: Bool[Tensor, "voxels outputs"]
    """True where a voxel belongs to a class; of exclusive ones to one."""
    weights: Float[Tensor, " voxels"]
    """Number of voxels that each stands for."""


@dataclass(frozen=True, slots=True)
class Reliability:
    """Probabilities in bins, beside how often the class was there (DeGroot 1983)."""

    share: Float[Tensor, "outputs bins"]
    """Share of the voxels."""
    predicted: Float[Tensor, "outputs bins"]
    """Mean probability; NaN in empty bins."""
    observed: Float[Tensor, "outputs bins"]
    """Share of the bin's voxels that belong to the class; NaN in empty bins."""

    @property
    def error(self) -> Float[Tensor, " outputs"]:
        """Expected calibration error of each class: mean distance of the two over the voxels (Naeini 2015)."""
        return (self.share * (self.predicted - self.observed).abs()).nansum(dim=1)


def measure_reliability(
    voxels: Voxels, temperatures: Sequence[float] = (), *, is_exclusive: bool = True
) -> Reliability:
    """Compare the probability of each class, against all others, with the truth."""
    probabilities = calibrated_probabilities(voxels.logits.double(), temperatures, is_exclusive=is_exclusive, dim=1)
    bins = (probabilities * NUM_BINS).long().clamp_max(NUM_BINS - 1)
    weights = voxels.weights.double()[:, None].expand_as(probabilities)

    def sums(values: Tensor) -> Tensor:
        return torch.zeros(NUM_BINS, values.shape[1], dtype=torch.double).scatter_add_(0, bins, values).T

    total = sums(weights)
    return Reliability(
        share=total / voxels.weights.double().sum(),
        predicted=sums(weights * probabilities) / total,
        observed=sums(weights * voxels.truth) / total,
    )


def negative_log_likelihood(voxels: Voxels, temperatures: Sequence[float] = (), *, is_exclusive: bool = True) -> float:
    """Compute the mean negative log-likelihood of the truth, in nats; of classes that overlap the mean over them."""
    inverse = torch.tensor(temperatures or [1.0] * voxels.logits.shape[1], dtype=torch.double).reciprocal()
    return float(_Likelihood(voxels, is_exclusive=is_exclusive).loss(inverse))


def fit_temperatures(voxels: Voxels, *, is_exclusive: bool = True) -> tuple[float, ...]:
    """Find the temperature of each class that minimises the negative log-likelihood, by Newton's method; 4 decimals.

    The loss is convex in the inverse temperatures a, so that there is one minimum. A pull of ``a - 1 - log a``, with
    the weight of one voxel, keeps those positive and finite that no voxel contradicts.
    """
    likelihood, pull = _Likelihood(voxels, is_exclusive=is_exclusive), 1 / len(voxels.weights)
    inverse = torch.ones(voxels.logits.shape[1], dtype=torch.double)

    def loss(a: Tensor) -> float:
        return float(likelihood.loss(a) + pull * (a - 1 - a.log()).sum()) if bool((a > 0).all()) else math.inf

    for _ in range(MAX_STEPS):
        gradient, curvature = likelihood.derivatives(inverse)
        gradient += pull * (1 - 1 / inverse)
        curvature += torch.diag(pull / inverse**2)
        step = torch.linalg.solve(curvature, gradient)
        expected, length = float(gradient @ step), 1.0
        if expected < TOLERANCE:
            break
        while loss(inverse - length * step) > loss(inverse) - 1e-4 * length * expected:
            length /= 2
        inverse = inverse - length * step
    return tuple(round(1 / value, 4) for value in inverse.tolist())


class _Likelihood:
    """Mean negative log-likelihood, and its derivatives, of inverse temperatures (outputs,)."""

    def __init__(self, voxels: Voxels, *, is_exclusive: bool) -> None:
        logits = voxels.logits.double()
        self.evidence = logits.log_softmax(dim=1) if is_exclusive else logits
        self.truth, self.is_exclusive = voxels.truth.double(), is_exclusive
        weights = voxels.weights.double() / voxels.weights.double().sum()
        self.weights = (weights if is_exclusive else weights / logits.shape[1])[:, None]  # a mean over regions, too

    def loss(self, inverse: Tensor) -> Tensor:
        """Compute the loss."""
        scaled = self.evidence * inverse
        if self.is_exclusive:
            log_likelihood = (self.truth * scaled.log_softmax(dim=1)).sum(dim=1, keepdim=True)
        else:
            log_likelihood = F.logsigmoid(torch.where(self.truth > 0, scaled, -scaled))
        return -(self.weights * log_likelihood).sum()

    def derivatives(self, inverse: Tensor) -> tuple[Tensor, Tensor]:
        """Compute gradient (outputs,) and Hessian (outputs, outputs)."""
        scaled = self.evidence * inverse
        probabilities = scaled.softmax(dim=1) if self.is_exclusive else scaled.sigmoid()
        gradient = (self.weights * (probabilities - self.truth) * self.evidence).sum(dim=0)
        expected = probabilities * self.evidence
        second = torch.diag((self.weights * expected * self.evidence).sum(dim=0))
        squares = (self.weights * expected).T @ expected
        return gradient, second - (squares if self.is_exclusive else torch.diag(squares.diagonal()))
