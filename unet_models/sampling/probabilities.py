"""Logits to calibrated probabilities, and how uncertain these are."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor


def calibrated_probabilities(
    logits: Float[Tensor, "..."], temperatures: Sequence[float] = (), *, is_exclusive: bool = True, dim: int = 0
) -> Float[Tensor, "..."]:
    """Turn logits, classes along ``dim``, into probabilities: of exclusive classes by softmax, else by sigmoid each.

    The log-probability of each exclusive class is divided by the temperature of the class (Guo 2017, with one
    temperature per class); of other classes the logit is. Log-probabilities, unlike logits, are the same whatever
    constant a network adds to all of its logits. No temperatures: all are 1.
    """
    if temperatures:
        scaled = logits.log_softmax(dim) if is_exclusive else logits
        shape = [1] * logits.ndim
        shape[dim] = -1
        logits = scaled / torch.tensor(temperatures, dtype=logits.dtype, device=logits.device).reshape(shape)
    return logits.softmax(dim) if is_exclusive else logits.sigmoid()


def normalised_entropy(
    probabilities: Float[Tensor, "..."], *, is_exclusive: bool = True, dim: int = 0
) -> Float[Tensor, "..."]:
    """Compute the entropy of probabilities along ``dim`` in nats, divided by its maximum: 0 is certain, 1 a guess.

    Of K exclusive classes the maximum is ``log K``. Others have each an entropy of its own, with the maximum
    ``log 2``: the result is their mean.
    """
    entropy = torch.special.entr(probabilities)
    if is_exclusive:
        return entropy.sum(dim) / math.log(probabilities.shape[dim])
    return (entropy + torch.special.entr(1 - probabilities)).mean(dim) / math.log(2)


def disagreement(
    members: Float[Tensor, "members ..."], *, is_exclusive: bool = True, dim: int = 1
) -> Float[Tensor, "..."]:
    """Compute how far the probabilities of several networks, classes along ``dim``, disagree.

    That is the mutual information of prediction and member (Houlsby 2011; Depeweg 2018): the entropy of the mean of the
    probabilities, minus the mean of their entropies, as a share of the greatest entropy. It is 0 where all members say
    the same, however unsure they are.
    """
    entropy = normalised_entropy(members.mean(dim=0), is_exclusive=is_exclusive, dim=dim - 1)
    return entropy - normalised_entropy(members, is_exclusive=is_exclusive, dim=dim).mean(dim=0)
