"""What the loader hands to training."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from jaxtyping import Float, Int
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class VolumeBatch:
    """One rank's share of the batch of one optimizer step."""

    images: Float[Tensor, "batch channels *read"]
    masks: Int[Tensor, " batch *read"]
    slots: tuple[int, ...]
    """Positions of these samples in the global batch: the address of their random numbers."""
    keys: tuple[str, ...]
    """Sample keys, for messages."""
    step: int

    def __len__(self) -> int:
        return len(self.slots)

    def to(self, device: torch.device) -> VolumeBatch:
        """On ``device``, without waiting where the memory is pinned."""
        return replace(
            self,
            images=self.images.to(device, non_blocking=True),
            masks=self.masks.to(device, non_blocking=True),
        )

    def pin_memory(self) -> VolumeBatch:
        """In page-locked memory (called by torch's DataLoader)."""
        return replace(self, images=self.images.pin_memory(), masks=self.masks.pin_memory())

    def split(self, size: int | None) -> list[VolumeBatch]:
        """Micro-batches of at most ``size`` samples."""
        if size is None or size >= len(self):
            return [self]
        return [
            replace(
                self,
                images=self.images[i : i + size],
                masks=self.masks[i : i + size],
                slots=self.slots[i : i + size],
                keys=self.keys[i : i + size],
            )
            for i in range(0, len(self), size)
        ]


@dataclass(frozen=True, slots=True)
class ImageBatch:
    """One rank's share of a batch of images of one size."""

    images: Int[Tensor, " batch channels height width"]
    """uint8, 0..255; scaled on the training device."""
    slots: tuple[int, ...]
    keys: tuple[str, ...]
    step: int

    def pin_memory(self) -> ImageBatch:
        """In page-locked memory (called by torch's DataLoader)."""
        return replace(self, images=self.images.pin_memory())
