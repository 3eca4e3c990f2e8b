"""Networks of one architecture that vote: the mean of their probabilities or logits, as one network."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from unet_models.networks.layers import SegmentationNetwork
from unet_models.networks.unet import UNet
from unet_models.sampling.probabilities import calibrated_probabilities, disagreement


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
        return self.average(self.predict_members(images))

    def predict_members(
        self, images: Float[Tensor, "batch channels *spatial"]
    ) -> Float[Tensor, "members batch classes *spatial"]:
        """Compute the logits of each member."""
        return torch.stack([member(images).float() for member in self.members])

    def average(
        self, logits: Float[Tensor, "members batch classes *spatial"]
    ) -> Float[Tensor, "batch classes *spatial"]:
        """Compute the logits of the average."""
        if self.averages_logits:
            return logits.mean(dim=0)
        if self.is_exclusive:
            return torch.logsumexp(F.log_softmax(logits, dim=2), dim=0) - math.log(len(self.members))
        # The logit of a mean probability: log p - log (1 - p), each without a difference of close numbers.
        return torch.logsumexp(F.logsigmoid(logits), dim=0) - torch.logsumexp(F.logsigmoid(-logits), dim=0)


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
