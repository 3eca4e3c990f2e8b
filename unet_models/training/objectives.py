"""What training minimises: from a batch to one loss per sample."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from data_pipelines.batches import CaptionedBatch, ImageBatch, LatentBatch, VolumeBatch
from unet_models.sampling import noise
from unet_models.training.losses import contrastive_loss
from unet_models.training.augment import augment
from unet_models.specs.encoders import AutoencoderSpec
from unet_models.specs.diffusion import DiffusionSpec
from unet_models.training.losses import deeply_supervised_loss
from data_pipelines.random_streams import NOISE, generator, torch_generator
from unet_models.specs.segmentation import TrainSpec
from unet_models.training.state import CHANNELS_LAST


class Objective(Protocol):
    """Turns a batch on the training device into a loss per sample."""

    def __call__(self, model: nn.Module, batch: Any) -> Tensor:
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


class NoisePrediction:
    """Latent diffusion: noise the latents, predict, compare (Ho 2020, eq. 14; Rombach 2022, eq. 2)."""

    def __init__(self, spec: DiffusionSpec, scaling_factor: float, empty_prompt: Tensor) -> None:
        """``empty_prompt`` (L, D): text states that dropped captions are replaced by."""
        self.spec = spec
        self.scaling_factor = scaling_factor
        self.empty_prompt = empty_prompt
        self.alphas = noise.alphas_cumprod(spec.noise)

    def __call__(self, model: nn.Module, batch: LatentBatch) -> Tensor:
        """(B,) weighted squared errors, mean over the latent."""
        spec, device = self.spec, batch.moments.device
        posterior_noise, epsilon = self._draw_noise(batch)
        draws = [generator(spec.seed, NOISE, batch.step, slot).random(2, np.float32) for slot in batch.slots]
        uniform = torch.from_numpy(np.stack(draws))
        timesteps = noise.draw_timesteps(uniform[:, 0], spec.noise.num_timesteps)
        alphas = self.alphas[timesteps].to(device)
        latents = noise.sample_posterior(batch.moments.float(), posterior_noise) * self.scaling_factor
        context = batch.encoder_hidden_states.float()
        dropped = (uniform[:, 1] < spec.caption_dropout).to(device)
        context = torch.where(dropped[:, None, None], self.empty_prompt.to(device, context.dtype), context)
        noisy = noise.add_noise(latents, epsilon, alphas)
        if spec.channels_last:
            noisy = noisy.to(memory_format=torch.channels_last)
        predicted = model(noisy, timesteps.to(device), context).float()
        wanted = noise.target(spec.noise.prediction_type, latents, epsilon, alphas)
        error = F.mse_loss(predicted, wanted, reduction="none").flatten(1).mean(dim=1)
        return error * noise.loss_weights(spec.noise.prediction_type, alphas, spec.min_snr_gamma)

    def _draw_noise(self, batch: LatentBatch) -> tuple[Tensor, Tensor]:
        """Two (B, C, h, w) of standard normals, each sample's from its own stream on the training device."""
        device = batch.moments.device
        _, two_channels, *size = batch.moments.shape
        drawn = torch.empty(len(batch), 2, two_channels // 2, *size, device=device)
        for i, slot in enumerate(batch.slots):
            drawn[i].normal_(generator=torch_generator(device, self.spec.seed, NOISE, batch.step, slot))
        return drawn[:, 0], drawn[:, 1]


@dataclass(frozen=True, slots=True)
class Reconstruction:
    """The autoencoder's: squared error of the image plus the KL divergence of the latents (Kingma 2014, eq. 10).

    With a discriminator plus the hinge losses of both sides (Lim 2017), as in Rombach 2022, of constant weight.
    """

    spec: AutoencoderSpec

    def __call__(self, model: nn.Module, batch: ImageBatch) -> Tensor:
        """(B,) losses, sums over the image and the latent, per pixel."""
        images = scale_images(batch.images)
        if self.spec.channels_last:
            images = images.to(memory_format=torch.channels_last)
        _, latent_channels, *size = self.latent_shape(images)
        drawn = torch.empty(len(batch), latent_channels, *size, device=images.device)
        for i, slot in enumerate(batch.slots):
            drawn[i].normal_(generator=torch_generator(images.device, self.spec.seed, NOISE, batch.step, slot))
        reconstructed, moments, *judged = model(images, drawn)
        mean, log_variance = moments.float().chunk(2, dim=1)
        kl = 0.5 * (mean**2 + log_variance.exp() - 1 - log_variance).flatten(1).sum(dim=1)
        error = F.mse_loss(reconstructed.float(), images, reduction="none").flatten(1)
        loss = error.mean(dim=1) + self.spec.kl_weight * kl / error.shape[1]
        if judged:  # before its first step times zero, not left out: DDP waits for a gradient of every parameter
            loss = loss + self._adversarial(*judged) * (batch.step >= self.spec.adversarial_start)
        return loss

    def _adversarial(self, fooled: Tensor, real: Tensor, fake: Tensor) -> Tensor:
        """(B,) hinge losses of judged patches."""
        told = F.relu(1 - real.float()) + F.relu(1 + fake.float())
        return (0.5 * told - self.spec.adversarial_weight * fooled.float()).flatten(1).mean(dim=1)

    def latent_shape(self, images: Tensor) -> tuple[int, ...]:
        """(B, latent channels, h, w) of these images' latents."""
        factor = 2 ** (len(self.spec.channels) - 1)
        return images.shape[0], self.spec.latent_channels, images.shape[2] // factor, images.shape[3] // factor


class Alignment:
    """A small CLIP's: each image's vector against every caption's of the global batch, and the reverse."""

    def __call__(self, model: nn.Module, batch: CaptionedBatch) -> Tensor:
        """(B,) contrastive losses; ranks must hold equal shares, in one micro-batch."""
        image_vectors, text_vectors, scale = model(scale_images(batch.images), batch.tokens)
        return contrastive_loss(image_vectors.float(), text_vectors.float(), scale.float())


def scale_images(images: Tensor) -> Tensor:
    """uint8 0..255 -> float32 -1..1."""
    return images.float() / 127.5 - 1
