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
    """Draw which modalities each sample keeps, of those that it has: (B, modalities) of booleans, on the CPU."""
    present = np.stack([_present(name, batch) for name in spec.modalities], axis=1)
    kept = np.empty(present.shape, bool)
    for row, there, position in zip(kept, present, batch.positions, strict=True):
        generator = numpy_generator(seed, Stream.MODALITY, batch.step, position)
        row[:] = there & (generator.random(len(row)) >= spec.dropout)
        if not row.any() and there.any():
            row[generator.choice(np.flatnonzero(there))] = True
    return torch.from_numpy(kept)


def _present(name: str, batch: VolumeBatch) -> np.ndarray:
    """Tell which samples (B,) have a modality: of those without a text all bytes are 0, without a sound all is NaN."""
    if name == "text" and batch.texts is not None:
        return np.asarray((batch.texts != 0).any(dim=1).cpu())
    if name == "sound" and batch.sounds is not None:
        return np.asarray((~batch.sounds.isnan()).any(dim=1).cpu())
    return np.ones(len(batch), bool)
