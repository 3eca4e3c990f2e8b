"""Hiding of modalities in training, so that each may be missing later."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from data_pipelines.batches import VolumeBatch
from data_pipelines.random_streams import Stream, numpy_generator
from unet_models.specs.networks import FusionSpec


def hide_modalities(
    images: Tensor, batch: VolumeBatch, spec: FusionSpec, seed: int
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Return images, texts and sounds for the network, hidden ones marked as missing.

    What is hidden from a sample is addressed by (seed, step, position). Where all would be, one stays.
    """
    kept = dict(zip(spec.modalities, draw_kept(batch, spec, seed).to(images.device).unbind(1), strict=True))
    images = torch.where(kept["image"].view(-1, *(1,) * (images.ndim - 1)), images, torch.nan)
    texts, sounds = batch.texts, batch.sounds
    if texts is not None:
        texts = texts * kept["text"][:, None]
    if sounds is not None:
        sounds = torch.where(kept["sound"][:, None], sounds, torch.nan)
    return images, texts, sounds


def draw_kept(batch: VolumeBatch, spec: FusionSpec, seed: int) -> Tensor:
    """Draw which modalities each sample keeps: (B, modalities) of booleans, on the CPU."""
    number = len(spec.modalities)
    kept = np.empty((len(batch), number), bool)
    for row, position in zip(kept, batch.positions, strict=True):
        generator = numpy_generator(seed, Stream.MODALITY, batch.step, position)
        row[:] = generator.random(number) >= spec.dropout
        if not row.any():
            row[generator.integers(number)] = True
    return torch.from_numpy(kept)
