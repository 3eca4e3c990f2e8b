"""The training task of the image autoencoder."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn

from data_pipelines.loading.loader import ImageSamples
from flows.training.held_out import SplitShards, validation_batch
from flows.training.task import Training, TrainingTask
from unet_models.distributed import sum_over_ranks
from unet_models.networks.autoencoder import TrainableAutoencoder
from unet_models.precision import autocast
from unet_models.sampling.pixels import scale_images
from unet_models.specs.encoders import AutoencoderSpec
from unet_models.training.objectives import Reconstruction


class AutoencoderTask(TrainingTask):
    """Images to latents and back."""

    score: ClassVar[str] = "val/psnr"
    spec: AutoencoderSpec
    resolution: int
    """Side of the square, in pixels."""

    def build_model(self) -> nn.Module:
        """Build the autoencoder."""
        return TrainableAutoencoder.from_spec(self.spec, self.resolution)

    def open(self, device: torch.device, rank: int) -> Training:
        """Build the network (not yet on ``device``) and open the data."""
        shards = SplitShards.open(self, bucket="bucket")
        images = ImageSamples(shards.reader)
        batches = shards.in_batches(shards.val_share(self.spec.validate_cases, rank), validation_batch(self.spec))
        return Training(
            model=self.build_model(),
            objective=Reconstruction(self.spec),
            batches=shards.batches(images, self.spec, rank),
            validate=_SignalToNoise(self.spec, images, batches, device),
        )


@dataclass(frozen=True, slots=True)
class _SignalToNoise:
    """Peak signal-to-noise ratio of held-out images reconstructed from the mean of their latents."""

    spec: AutoencoderSpec
    images: ImageSamples
    batches: list[list[int]]
    device: torch.device

    @torch.no_grad()
    def __call__(self, model: nn.Module) -> dict[str, float]:
        if not self.spec.validate_cases:
            return {}
        squared, count = 0.0, 0
        for rows in self.batches:
            images = scale_images(self.images.pixels(rows)).to(self.device)
            with autocast(self.spec.precision, self.device):
                restored = model.autoencoder(images).sample  # type: ignore[operator]  # of the mean, by default
            squared += float((restored.float().clamp(-1, 1) - images).square().double().sum())
            count += images.numel()
        totals = sum_over_ranks(torch.tensor([squared, float(count)], dtype=torch.float64), self.device)
        error = float(totals[0] / totals[1])
        return {"val/psnr": 10 * math.log10(4 / error)}  # values span 2, from -1 to 1
