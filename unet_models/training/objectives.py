"""Training objectives: from a batch to one loss per sample."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from data_pipelines.batches import Batch, CaptionedBatch, ImageBatch, LatentBatch, VolumeBatch
from data_pipelines.random_streams import Stream, numpy_generator, torch_generator
from unet_models.networks.layers import crop_border
from unet_models.precision import full_precision
from unet_models.restoration.task import Task
from unet_models.sampling import noise
from unet_models.sampling.conditions import Conditions, degrade, nothing_known
from unet_models.sampling.pixels import scale_images
from unet_models.specs.diffusion import DiffusionSpec
from unet_models.specs.encoders import AutoencoderSpec
from unet_models.specs.restoration import RestorationSpec
from unet_models.specs.segmentation import TargetSpec, TrainSpec
from unet_models.training.augment import augment
from unet_models.training.losses import contrastive_loss, deeply_supervised_loss
from unet_models.training.modalities import hide_modalities
from unet_models.training.state import CHANNELS_LAST

ReadBatch = TypeVar("ReadBatch", bound=Batch, contravariant=True)


class Objective(Protocol[ReadBatch]):
    """Function from a network and a batch on the training device to one loss per sample."""

    def __call__(self, model: nn.Module, batch: ReadBatch) -> Float[Tensor, " batch"]:
        """Compute the losses in float32, each with gradient."""
        ...


@dataclass(frozen=True, slots=True)
class Segmentation:
    """Segmentation loss of augmented patches."""

    spec: TrainSpec
    targets: TargetSpec | None = None
    """Meaning of the network's outputs; None: exclusive classes."""
    num_previous: int = 0
    """Classes of a previous network's label map, the last channel of the images; 0: there is none."""

    def __call__(self, model: nn.Module, batch: VolumeBatch) -> Float[Tensor, " batch"]:
        """Augment the batch, predict and compare; augmentation is addressed by (seed, step, position)."""
        spec = self.spec
        size = spec.with_border(spec.patch_at(batch.step))
        place = batch.positions, batch.step, spec.seed
        images, masks = augment(batch.images, batch.masks, *place, size, spec.augment, self.num_previous)
        masks = crop_border(masks, spec.border)
        if spec.channels_last:
            images = images.to(memory_format=CHANNELS_LAST[len(spec.patch_size)])
        if spec.model.fusion is not None:
            inputs = hide_modalities(images, batch, spec.model.fusion, spec.seed)
            return deeply_supervised_loss(model(*inputs), masks, spec.loss, self.targets)
        return deeply_supervised_loss(model(images), masks, spec.loss, self.targets)


class NoisePrediction:
    """Loss of latent diffusion: add noise to latents, predict, compare (Ho 2020, eq. 14; Rombach 2022, eq. 2)."""

    def __init__(
        self, spec: DiffusionSpec, scaling_factor: float, empty_prompt: Float[Tensor, "tokens context"]
    ) -> None:
        """``empty_prompt`` holds the text states that replace those of dropped captions."""
        self.spec = spec
        self.scaling_factor = scaling_factor
        self.empty_prompt = empty_prompt
        self.alphas = noise.alphas_cumprod(spec.noise)

    def __call__(self, model: nn.Module, batch: LatentBatch) -> Float[Tensor, " batch"]:
        """Compute weighted squared errors, averaged over the latent."""
        spec, device = self.spec, batch.moments.device
        _, two_channels, *size = batch.moments.shape
        drawn = draw_normals(batch, spec.seed, (2, two_channels // 2, *size))
        posterior_noise, epsilon = drawn[:, 0], drawn[:, 1]
        uniform = self._draw_uniform(batch)
        timesteps = noise.draw_timesteps(uniform[:, 0], spec.noise.num_timesteps)
        alphas = self.alphas[timesteps].to(device)
        latents = noise.sample_posterior(batch.moments.float(), posterior_noise) * self.scaling_factor
        noisy = noise.add_noise(latents, epsilon, alphas)
        if spec.channels_last:
            noisy = noisy.to(memory_format=torch.channels_last)
        conditions = self._conditions(batch, latents, uniform[:, 1])
        predicted = conditions.predict(model, noisy, timesteps.to(device))
        wanted = noise.target(spec.noise.prediction_type, latents, epsilon, alphas)
        error = F.mse_loss(predicted, wanted, reduction="none").flatten(1).mean(dim=1)
        return error * noise.loss_weights(spec.noise.prediction_type, alphas, spec.min_snr_gamma)

    def _draw_uniform(self, batch: LatentBatch) -> Tensor:
        """Draw two numbers in [0, 1) per sample, on the CPU: (B, 2), for the timestep and for caption dropout."""
        generators = [numpy_generator(self.spec.seed, Stream.NOISE, batch.step, p) for p in batch.positions]
        return torch.from_numpy(np.stack([generator.random(2, np.float32) for generator in generators]))

    def _conditions(self, batch: LatentBatch, latents: Tensor, uniform: Tensor) -> Conditions:
        """Build the conditions that the network takes, each dropped as often as the spec says.

        ``uniform`` (B,) decides on captions; other numbers are drawn where they are needed.
        """
        spec, device = self.spec, latents.device
        text = None
        if spec.model.context_dim is not None:
            text = self._drop_captions(batch.encoder_hidden_states.float(), uniform < spec.caption_dropout)
        if spec.model.num_class_embeds is None and spec.image_condition.kind == "none":
            return Conditions(text)
        generators = [numpy_generator(spec.seed, Stream.CONDITION, batch.step, p) for p in batch.positions]
        drawn = torch.from_numpy(np.stack([generator.random(6, np.float32) for generator in generators])).to(device)
        labels = known = None
        if spec.model.num_class_embeds is not None:
            is_dropped = drawn[:, 0] < spec.class_dropout
            labels = batch.class_labels.masked_fill(is_dropped, spec.model.num_class_embeds - 1)
        if spec.image_condition.kind != "none":
            is_dropped = (drawn[:, 1] < spec.image_condition.dropout)[:, None, None, None]
            degraded = degrade(latents, spec.image_condition, drawn[:, 2:])
            known = torch.where(is_dropped, nothing_known(latents), degraded)
        return Conditions(text, labels, known)

    def _drop_captions(self, context: Tensor, is_dropped: Tensor) -> Tensor:
        """Replace the text states (B, L, D) of dropped captions by those of the empty prompt."""
        dropped = is_dropped.to(context.device)[:, None, None]
        return torch.where(dropped, self.empty_prompt.to(context.device, context.dtype), context)


@dataclass(frozen=True, slots=True)
class Reconstruction:
    """Autoencoder loss: squared error of the image plus KL divergence of the latents (Kingma 2014, eq. 10).

    With a discriminator the hinge losses of both sides are added (Lim 2017), as in Rombach 2022, of constant weight.
    """

    spec: AutoencoderSpec

    def __call__(self, model: nn.Module, batch: ImageBatch) -> Float[Tensor, " batch"]:
        """Compute the losses, summed over image and latent, per pixel."""
        images = scale_images(batch.images)
        if self.spec.channels_last:
            images = images.to(memory_format=torch.channels_last)
        drawn = draw_normals(batch, self.spec.seed, self._latent_shape(images))
        reconstructed, moments, *scores = model(images, drawn)
        mean, log_variance = moments.float().chunk(2, dim=1)
        kl = 0.5 * (mean**2 + log_variance.exp() - 1 - log_variance).flatten(1).sum(dim=1)
        error = F.mse_loss(reconstructed.float(), images, reduction="none").flatten(1)
        loss = error.mean(dim=1) + self.spec.kl_weight * kl / error.shape[1]
        if scores:  # before its first step times zero, not left out: DDP waits for a gradient of every parameter
            is_on = batch.step >= self.spec.adversarial_start
            loss = loss + adversarial_loss(*scores, weight=self.spec.adversarial_weight) * is_on
        return loss

    def _latent_shape(self, images: Tensor) -> tuple[int, ...]:
        """Compute the shape (C, h, w) of each image's latents."""
        factor = 2 ** (len(self.spec.channels) - 1)
        return self.spec.latent_channels, images.shape[2] // factor, images.shape[3] // factor


@dataclass(frozen=True, slots=True)
class Restoration:
    """Loss of restored images, which are degraded as they are read."""

    spec: RestorationSpec
    task: Task

    def __call__(self, model: nn.Module, batch: ImageBatch) -> Float[Tensor, " batch"]:
        """Degrade the batch, restore it and compare; degradation is addressed by (seed, step, position)."""
        spec = self.spec
        images = batch.images.float() / 255
        cpu = torch.device("cpu")  # the same degradation on every kind of device
        streams = [torch_generator(cpu, spec.seed, Stream.DEGRADATION, batch.step, p) for p in batch.positions]
        with full_precision(images.device):
            inputs = self.task.degrade(images, streams)
        if spec.channels_last:
            inputs = inputs.to(memory_format=torch.channels_last)
        output, *scores = model(inputs, images)
        with full_precision(images.device):
            loss = self.task.loss(output, inputs, images, spec.loss)
        if scores:  # as in ``Reconstruction``
            is_on = batch.step >= spec.loss.adversarial_start
            loss = loss + adversarial_loss(*scores, weight=spec.loss.terms["adversarial"]) * is_on
        return loss


class Alignment:
    """Contrastive loss of a small CLIP: each image against every caption of the global batch, and the reverse."""

    def __call__(self, model: nn.Module, batch: CaptionedBatch) -> Float[Tensor, " batch"]:
        """Compute the contrastive losses; ranks must hold equal shares, in one micro-batch."""
        image_vectors, text_vectors, scale = model(scale_images(batch.images), batch.tokens)
        return contrastive_loss(image_vectors, text_vectors, scale)


def adversarial_loss(fooled: Tensor, real: Tensor, fake: Tensor, *, weight: float) -> Float[Tensor, " batch"]:
    """Compute the hinge losses (Lim 2017) of a discriminator and of what it judges, from its ``patch_scores``."""
    discriminator = F.relu(1 - real.float()) + F.relu(1 + fake.float())
    return (0.5 * discriminator - weight * fooled.float()).flatten(1).mean(dim=1)


def draw_normals(batch: Batch, seed: int, shape: Sequence[int]) -> Float[Tensor, " batch *shape"]:
    """Draw standard normals ``(B, *shape)`` on the batch's device, each sample's from its own stream."""
    drawn = torch.empty(len(batch), *shape, device=batch.device)
    for i, position in enumerate(batch.positions):
        drawn[i].normal_(generator=torch_generator(batch.device, seed, Stream.NOISE, batch.step, position))
    return drawn
