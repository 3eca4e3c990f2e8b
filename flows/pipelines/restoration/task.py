"""The training task of the restoration network."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn

from data_pipelines.loading.loader import ImageCrops, ImageSamples
from flows.training.held_out import SplitShards
from flows.training.task import Training, TrainingTask
from unet_models.distributed import sum_over_ranks
from unet_models.metrics.images import psnr
from unet_models.restoration.build import build_task
from unet_models.restoration.held_out import degrade_held_out
from unet_models.restoration.restorer import Restorer, TrainableRestorer
from unet_models.restoration.tiles import restore_in_tiles
from unet_models.specs.restoration import RestorationSpec, TaskSpec
from unet_models.training.objectives import Restoration


class RestorationTask(TrainingTask):
    """A U-Net on random patches of images, which are degraded as they are read."""

    score: ClassVar[str] = "val/psnr"
    spec: RestorationSpec
    task: TaskSpec
    class_weights: tuple[float, ...] = ()
    """Weight of each quantised colour, of colourisation by classes."""
    tile: int | None
    """Side of a tile in validation."""
    degradation_seed: int
    """Seed of the degradation of held-out images: that of the evaluation."""

    def build_model(self) -> nn.Module:
        """Build the restorer, and the discriminator where one is trained along."""
        restorer = Restorer.build(self.spec.model, build_task(self.task, self.class_weights))
        return TrainableRestorer(restorer, is_adversarial="adversarial" in self.spec.loss.terms)

    def open(self, device: torch.device, rank: int) -> Training:
        """Build the network (not yet on ``device``) and open the data."""
        spec, task = self.spec, build_task(self.task, self.class_weights)
        shards = SplitShards.open(self)
        images = ImageSamples(shards.reader)
        return Training(
            model=self.build_model(),
            objective=Restoration(spec, task),
            batches=shards.batches(ImageCrops(images, spec.patch_size, spec.seed, spec.augment), spec, rank),
            validate=_MeanSignalToNoise(self, images, shards.val_share(spec.validate_cases, rank), device),
        )


@dataclass(frozen=True, slots=True)
class _MeanSignalToNoise:
    """Mean PSNR of a few held-out images, inside the holes where there are any, shared out over the ranks."""

    task: RestorationTask
    images: ImageSamples
    rows: list[int]
    device: torch.device

    def __call__(self, model: nn.Module) -> dict[str, float]:
        if not self.task.spec.validate_cases:
            return {}
        sums = torch.zeros(2, dtype=torch.float64)
        for row in self.rows:
            sums += torch.tensor([self._psnr(model.restorer, row), 1.0])  # type: ignore[arg-type]
        total, count = sum_over_ranks(sums, self.device).tolist()
        return {"val/psnr": total / count} if count else {}

    def _psnr(self, restorer: Restorer, row: int) -> float:
        image = self.images.pixels([row]).float() / 255
        sample = degrade_held_out(restorer.task, image, self.images.reader.key(row), self.task.degradation_seed)
        inputs = sample.inputs[0].to(self.device)
        restored = restore_in_tiles(restorer, inputs, self.task.tile, self.task.spec.precision)
        return psnr(restored.cpu(), sample.image, sample.region)
