"""Early exits: images leave a decoder at the first deep-supervision head that is confident of every voxel.

After each head a voxel is settled where the probability of what is predicted exceeds a threshold, as in
confidence-based exits of classifiers (BranchyNet, Teerapittayanon 2016, with the probability in place of the entropy).
Images whose voxels are
all settled skip the finer stages; in the others settled voxels keep the logits of their head.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from unet_models.networks.decoders.unet import Decoder
from unet_models.networks.layers import INTERPOLATION
from unet_models.networks.unet import UNet


@dataclass(slots=True)
class _Open:
    """Images that have not left: features, and what the last head said of them."""

    rows: Tensor
    """(A,) numbers of the images in the batch."""
    encoded: list[Tensor]
    """(A, C, *spatial) features of the encoder, finest first."""
    x: Tensor
    """(A, C, *spatial) features of the decoder."""
    logits: Tensor | None = None
    """(A, K, *spatial) logits of the last head, with those of earlier ones where they were settled."""
    settled: Tensor | None = None
    """(A, 1, *spatial) voxels that keep their logits."""

    def without(self, left: Tensor) -> _Open:
        """Return the images that are not in ``left`` (A,)."""
        stays = ~left
        encoded = [features[stays] for features in self.encoded]
        logits, settled = (None if part is None else part[stays] for part in (self.logits, self.settled))
        return _Open(self.rows[stays], encoded, self.x[stays], logits, settled)


class EarlyExit(nn.Module):
    """A trained network in evaluation mode, as a function from images to logits that takes less time where it may."""

    def __init__(self, network: UNet, threshold: float, *, is_exclusive: bool = True) -> None:
        """Wrap a network with deep supervision; probabilities are at most 1: with a ``threshold`` of 1 none leaves.

        Of classes that are not exclusive a voxel is settled where each is confidently there or confidently not.

        Raises ValueError for a network without heads of coarser stages.
        """
        super().__init__()
        if not isinstance(network.decoder, Decoder) or len(network.decoder.heads) < 2:
            raise ValueError("early exits need decoder unet and deep supervision")
        self.network, self.threshold, self.mode = network, threshold, INTERPOLATION[network.ndim]
        self.is_exclusive = is_exclusive
        self.num_left = [0] * len(network.decoder.heads)
        """Images that left at each head so far, coarsest first; the last is full resolution."""

    def forward(
        self, images: Float[Tensor, "batch channels *spatial"], *given: Tensor | None
    ) -> Float[Tensor, "batch classes *spatial"]:
        """Compute logits; those of coarser heads are upsampled linearly. ``given``: the network's further inputs."""
        decoder = self.network.decoder
        assert isinstance(decoder, Decoder)
        padded = self.network.pad(images)
        *encoded, x = self.network.encode(images, *given)
        state, outputs = _Open(torch.arange(len(images), device=images.device), encoded, x), []
        first = len(decoder.stages) - len(decoder.heads)
        for number in range(len(decoder.stages)):
            state.x = decoder.refine(number, state.x, state.encoded[-1 - number])
            if number < first:
                continue
            self._ask(decoder.heads[number - first], state)
            assert state.logits is not None and state.settled is not None  # noqa: PT018
            left = state.settled.flatten(1).all(dim=1) | (number == len(decoder.stages) - 1)
            if num_left := int(left.sum()):
                self.num_left[number - first] += num_left
                outputs.append((state.rows[left], self._resize(state.logits[left], padded)))
                state = state.without(left)
            if not len(state.rows):
                break
        rows, logits = (torch.cat(parts) for parts in zip(*outputs, strict=True))
        return self.network.crop(logits[rows.argsort()], images)

    def _ask(self, head: nn.Module, state: _Open) -> None:
        """Let a head predict what is not settled, and settle what it is confident of."""
        logits = head(state.x)
        confident = self._confidence(logits.float()) > self.threshold
        if state.logits is not None and state.settled is not None:
            settled = F.interpolate(state.settled.to(logits.dtype), size=logits.shape[2:], mode="nearest-exact") > 0
            logits = torch.where(settled, self._resize(state.logits, logits), logits)
            confident = confident | settled
        state.logits, state.settled = logits, confident

    def _confidence(self, logits: Tensor) -> Tensor:
        """Return the probability (A, 1, *spatial) of what is predicted; of regions that of the least certain."""
        if self.is_exclusive:
            return logits.softmax(dim=1).amax(dim=1, keepdim=True)
        return logits.abs().sigmoid().amin(dim=1, keepdim=True)

    def _resize(self, logits: Tensor, like: Tensor) -> Tensor:
        if logits.shape[2:] == like.shape[2:]:
            return logits
        return F.interpolate(logits, size=like.shape[2:], mode=self.mode, align_corners=False)
