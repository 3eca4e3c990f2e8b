"""Captions, images and specs of small encoders."""

from __future__ import annotations

import torch

from data_pipelines.batches import ImageBatch
from unet_models.specs.encoders import AlignmentSpec, AutoencoderSpec

CAPTIONS = ["a small red circle", "a large blue square above a small red circle", "a cat", "emoji of a cat"] * 3
CLIP = AlignmentSpec(width=16, num_layers=1, num_heads=2, num_tokens=12, vector_size=8)
AUTOENCODER = AutoencoderSpec(channels=(8, 16), kl_weight=0.5)


def image_batch(num: int = 2) -> ImageBatch:
    """Draw images of 16 pixels, the same each time."""
    images = torch.randint(0, 256, (num, 3, 16, 16), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    return ImageBatch(images, tuple(range(num)), tuple(map(str, range(num))), 0)
