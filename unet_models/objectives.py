"""What training minimises: from a batch to one loss per sample."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor, nn

from data_pipelines.batches import VolumeBatch
from unet_models.augment import augment
from unet_models.losses import deeply_supervised_loss
from unet_models.specs import TrainSpec
from unet_models.training_state import CHANNELS_LAST


class Objective(Protocol):
    """Turns a batch on the training device into a loss per sample."""

    def __call__(self, model: nn.Module, batch: VolumeBatch) -> Tensor:
        """(B,) losses in float32, each with gradient."""
        ...


@dataclass(frozen=True, slots=True)
class Segmentation:
    """Augment, predict, compare."""

    spec: TrainSpec

    def __call__(self, model: nn.Module, batch: VolumeBatch) -> Tensor:
        """(B,) losses; the batch is augmented as its (seed, step, slots) say."""
        spec = self.spec
        images, masks = augment(
            batch.images, batch.masks, batch.slots, batch.step, spec.seed, spec.patch_size, spec.augment
        )
        if spec.channels_last:
            images = images.to(memory_format=CHANNELS_LAST[len(spec.patch_size)])
        return deeply_supervised_loss(model(images), masks, spec.loss)
