"""Batch types that the loader builds and training consumes: the whole interface between the two packages."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    import torch
    from jaxtyping import Float, Int
    from torch import Tensor


class Batch:
    """One rank's share of the global batch of one optimizer step.

    Subclasses are frozen dataclasses with tensor fields, whose first axis is the sample, and the three fields below.
    """

    __slots__ = ()

    positions: tuple[int, ...]
    """Positions of the samples in the global batch: with seed and step, the address of their random numbers."""
    keys: tuple[str, ...]
    """``__key__`` of each sample, for messages."""
    step: int
    """Optimizer step that the batch is for."""

    def __len__(self) -> int:
        return len(self.positions)

    @property
    def tensors(self) -> dict[str, Tensor]:
        """Tensor fields by name."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}  # type: ignore[arg-type]  # subclasses are dataclasses
        return {name: value for name, value in values.items() if hasattr(value, "device")}

    @property
    def device(self) -> torch.device:
        """Device of the tensors."""
        return next(iter(self.tensors.values())).device

    def to(self, device: torch.device) -> Self:
        """Copy the tensors to ``device``, asynchronously from pinned memory."""
        return self._replace({name: t.to(device, non_blocking=True) for name, t in self.tensors.items()})

    def pin_memory(self) -> Self:
        """Copy the tensors to page-locked memory (called by torch's DataLoader)."""
        return self._replace({name: t.pin_memory() for name, t in self.tensors.items()})

    def split(self, size: int | None) -> list[Self]:
        """Split into micro-batches of at most ``size`` samples; None: the batch as it is."""
        if size is None or size >= len(self):
            return [self]
        return [self._part(slice(start, start + size)) for start in range(0, len(self), size)]

    def _part(self, part: slice) -> Self:
        tensors = {name: tensor[part] for name, tensor in self.tensors.items()}
        return self._replace({**tensors, "positions": self.positions[part], "keys": self.keys[part]})

    def _replace(self, changes: Mapping[str, object]) -> Self:
        return replace(self, **changes)  # type: ignore[type-var]  # subclasses are dataclasses


@dataclass(frozen=True, slots=True)
class VolumeBatch(Batch):
    """Patches of volumes with their labels."""

    images: Float[Tensor, "batch channels *read"]
    masks: Int[Tensor, " batch *read"]
    positions: tuple[int, ...]
    keys: tuple[str, ...]
    step: int
    texts: Int[Tensor, "batch bytes"] | None = None
    """UTF-8 with zeros behind its end; all zeros where a sample has none. None: the network reads none."""
    sounds: Float[Tensor, "batch samples"] | None = None
    """In -1..1; all NaN where a sample has none. None: the network reads none."""


@dataclass(frozen=True, slots=True)
class ImageBatch(Batch):
    """Images of one size."""

    images: Int[Tensor, " batch channels height width"]
    """uint8, 0..255; scaled on the training device."""
    positions: tuple[int, ...]
    keys: tuple[str, ...]
    step: int


@dataclass(frozen=True, slots=True)
class CaptionedBatch(Batch):
    """Images of one size with their captions."""

    images: Int[Tensor, " batch channels height width"]
    """uint8, 0..255; scaled on the training device."""
    tokens: Int[Tensor, " batch tokens"]
    """Token ids of the captions, padded to one length."""
    positions: tuple[int, ...]
    keys: tuple[str, ...]
    step: int


@dataclass(frozen=True, slots=True)
class LatentBatch(Batch):
    """Encoded images with the text encoder's states of their captions, and their classes."""

    moments: Float[Tensor, "batch two_channels height width"]
    """Mean, then log-variance, of the autoencoder's posterior; unscaled."""
    encoder_hidden_states: Float[Tensor, "batch tokens context"]
    class_labels: Int[Tensor, " batch"]
    """Numbers of the classes; 0 where the data have none."""
    positions: tuple[int, ...]
    keys: tuple[str, ...]
    step: int
