"""Networks of one architecture that vote: the mean of their probabilities or logits, as one network."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from functools import reduce

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from unet_models.networks.layers import SegmentationNetwork
from unet_models.networks.unet import UNet
from unet_models.sampling.probabilities import calibrated_probabilities, disagreement

AVERAGE_COPIES = 7
"""Logits of a batch of windows that exist at once, at most, while an ensemble averages its members one by one: a
member's, two sums, and temporary ones."""
DISAGREEMENT_COPIES = 4
"""Logits of a batch of windows that exist at once for each member while their disagreement is computed: as predicted,
scaled, as log-probabilities, and as probabilities."""


class Ensemble(SegmentationNetwork):
    """Trained networks as a function from images to logits whose probabilities are the mean of theirs.

    Softmax of the logits is the mean of the members' softmax; of classes that are not exclusive, sigmoid of the logits
    is the mean of their sigmoids. Or the logits themselves are averaged, as nnU-Net does.
    """

    def __init__(self, members: Sequence[UNet], *, is_exclusive: bool = True, averages_logits: bool = False) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)
        self.is_exclusive, self.averages_logits = is_exclusive, averages_logits
        first = members[0]
        self.ndim, self.divisor = first.ndim, first.divisor
        self.border, self.remainder = first.border, first.remainder

    def forward(self, images: Float[Tensor, "batch channels *spatial"]) -> Float[Tensor, "batch classes *spatial"]:
        """Compute logits, as the members do in evaluation mode."""
        return self.average(member(images).float() for member in self.members)  # one by one: each takes memory

    def predict_members(
        self, images: Float[Tensor, "batch channels *spatial"]
    ) -> Float[Tensor, "members batch classes *spatial"]:
        """Compute the logits of each member."""
        return torch.stack([member(images).float() for member in self.members])

    def average(
        self, logits: Iterable[Float[Tensor, "batch classes *spatial"]]
    ) -> Float[Tensor, "batch classes *spatial"]:
        """Compute the logits of the average of the members' logits."""
        if self.averages_logits:
            return reduce(torch.add, logits) / len(self.members)
        if self.is_exclusive:
            return reduce(_log_add_exp, (F.log_softmax(each, dim=1) for each in logits)) - math.log(len(self.members))
        # The logit of a mean probability: log p - log (1 - p), each without a difference of close numbers. Written as
        # softplus, since the log-sigmoid of ONNX is infinite below -100.
        inside, outside = reduce(_add_sides, ((-F.softplus(-each), -F.softplus(each)) for each in logits))
        return inside - outside


def _log_add_exp(first: Tensor, second: Tensor) -> Tensor:
    """Compute log(exp(first) + exp(second)). ``torch.logaddexp`` becomes infinite in ONNX where both are below -100."""
    return torch.maximum(first, second) + F.softplus(-(first - second).abs())


def _add_sides(first: tuple[Tensor, Tensor], second: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    return _log_add_exp(first[0], second[0]), _log_add_exp(first[1], second[1])


class Disagreement(nn.Module):
    """An ensemble whose logits are followed by one more channel: how far its members disagree, once calibrated."""

    def __init__(self, ensemble: Ensemble, temperatures: Sequence[float] = ()) -> None:
        super().__init__()
        self.ensemble, self.temperatures = ensemble, tuple(temperatures)

    def forward(self, images: Float[Tensor, "batch channels *spatial"]) -> Float[Tensor, "batch outputs *spatial"]:
        """Compute logits and disagreement."""
        logits, is_exclusive = self.ensemble.predict_members(images), self.ensemble.is_exclusive
        members = calibrated_probabilities(logits, self.temperatures, is_exclusive=is_exclusive, dim=2)
        found = disagreement(members, is_exclusive=is_exclusive, dim=2)
        return torch.cat([self.ensemble.average(logits), found[:, None]], dim=1)
