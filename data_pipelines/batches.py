"""What the loader hands to training."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    import torch
    from jaxtyping import Float, Int
    from torch import Tensor


class Batch:
    """One rank's share of the batch of one optimizer step: tensors whose first axis is the sample, and addresses.

    Subclasses are frozen dataclasses with tensor fields and the three fields below.
    """

    __slots__ = ()

    slots: tuple[int, ...]
    """Positions of these samples in the global batch: the address of their random numbers."""
    keys: tuple[str, ...]
    """Sample keys, for messages."""
    step: int

    def __len__(self) -> int:
        return len(self.slots)

    @property
    def tensors(self) -> dict[str, Tensor]:
        """Field name to tensor."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}  # type: ignore[arg-type]  # subclasses are dataclasses
        return {name: value for name, value in values.items() if hasattr(value, "device")}

    @property
    def device(self) -> torch.device:
        """Where the tensors lie."""
        return next(iter(self.tensors.values())).device

    def to(self, device: torch.device) -> Self:
        """On ``device``, without waiting where the memory is pinned."""
        return self._replace({name: t.to(device, non_blocking=True) for name, t in self.tensors.items()})

    def pin_memory(self) -> Self:
        """In page-locked memory (called by torch's DataLoader)."""
        return self._replace({name: t.pin_memory() for name, t in self.tensors.items()})

    def split(self, size: int | None) -> list[Self]:
        """Micro-batches of at most ``size`` samples."""
        if size is None or size >= len(self):
            return [self]
        parts = [slice(i, i + size) for i in range(0, len(self), size)]
        return [
            self._replace(
                {name: t[part] for name, t in self.tensors.items()}
                | {"slots": self.slots[part], "keys": self.keys[part]}
            )
            for part in parts
        ]

    def _replace(self, changes: dict[str, object]) -> Self:
        return replace(self, **changes)  # type: ignore[type-var]  # subclasses are dataclasses


@dataclass(frozen=True, slots=True)
class VolumeBatch(Batch):
    """Patches of volumes with their labels."""

    images: Float[Tensor, "batch channels *read"]
    masks: Int[Tensor, " batch *read"]
    slots: tuple[int, ...]
    keys: tuple[str, ...]
    step: int


@dataclass(frozen=True, slots=True)
class ImageBatch(Batch):
    """Images of one size."""

    images: Int[Tensor, " batch channels height width"]
    """uint8, 0..255; scaled on the training device."""
    slots: tuple[int, ...]
    keys: tuple[str, ...]
    step: int


@dataclass(frozen=True, slots=True)
class CaptionedBatch(Batch):
    """Images of one size with their captions."""

    images: Int[Tensor, " batch channels height width"]
    """uint8, 0..255; scaled on the training device."""
    tokens: Int[Tensor, " batch tokens"]
    """Token ids of the captions, all of one length."""
    slots: tuple[int, ...]
    keys: tuple[str, ...]
    step: int


@dataclass(frozen=True, slots=True)
class LatentBatch(Batch):
    """Encoded images with the states of their captions."""

    moments: Float[Tensor, "batch two_channels height width"]
    """Mean, then log-variance, of the autoencoder's posterior; unscaled."""
    encoder_hidden_states: Float[Tensor, "batch tokens context"]
    slots: tuple[int, ...]
    keys: tuple[str, ...]
    step: int
