"""Weights of one network as the first ones of another: what fits by name and shape is taken, the rest is drawn anew."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from torch import Tensor

from data_pipelines.errors import WeightsError
from unet_models.networks.weights_file import check_finite, some_names

Weights = dict[str, Tensor]


@dataclass(frozen=True, slots=True)
class Transfer:
    """Weights that a network takes over from another, and those that it does not."""

    taken: Weights
    """Name to tensor, in the network's own types."""
    reinitialised: dict[str, str]
    """Name of each weight of the network that is not taken, with the reason."""
    unused: tuple[str, ...]
    """Names of weights that the network does not have."""
    num_weights: int
    """Numbers in all tensors of the network."""

    @property
    def share(self) -> float:
        """Share of the network's weights that are taken."""
        return sum(tensor.numel() for tensor in self.taken.values()) / max(self.num_weights, 1)


def match_weights(
    where: str,
    found: Mapping[str, Tensor],
    own: Mapping[str, Tensor],
    refused: tuple[re.Pattern[str], str] | None = None,
) -> Transfer:
    """Match the weights of ``found`` with those of a network, ``own``, by name, shape and kind of numbers.

    ``own`` may be on the meta device. ``refused`` are names, as a pattern, that are not taken although they fit, and
    the reason. Raises WeightsError where nothing is taken, and where a weight that is taken is not finite.
    """
    reasons = {name: _obstacle(name, found, tensor, refused) for name, tensor in own.items()}
    taken = {name: found[name].to(own[name].dtype).contiguous() for name, reason in reasons.items() if not reason}
    reinitialised = {name: reason for name, reason in reasons.items() if reason}
    if not taken:
        raise WeightsError(f"{where}: none of its {len(found)} weights fits the network: {_difference(found, own)}")
    check_finite(where, taken)
    unused = tuple(name for name in found if name not in own)
    return Transfer(taken, reinitialised, unused, sum(tensor.numel() for tensor in own.values()))


def _obstacle(name: str, found: Mapping[str, Tensor], own: Tensor, refused: tuple[re.Pattern[str], str] | None) -> str:
    """Say why a weight is not taken; empty where it is."""
    if name not in found:
        return "not in the file"
    theirs = found[name]
    if theirs.shape != own.shape:
        return f"{_size(theirs)} there, {_size(own)} here"
    if theirs.is_floating_point() != own.is_floating_point():
        return f"{theirs.dtype} there, {own.dtype} here"
    return refused[1] if refused and refused[0].match(name) else ""


def _difference(found: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> str:
    common = list(_iter_unlike(found, own))
    if common:
        return f"{len(common)} have its names and other shapes, such as {some_names(common)}"
    return f"they are named {some_names(found) or 'nothing'}, the network's {some_names(own)}"


def _iter_unlike(found: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> Iterator[str]:
    for name in own.keys() & found.keys():
        yield f"{name} ({_size(found[name])} there, {_size(own[name])} here)"


def _size(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "a number"
