"""Captions, images and specs of small encoders, and folders of encoders that nobody trained."""

from __future__ import annotations

from pathlib import Path

import torch

from data_pipelines.batches import ImageBatch
from unet_models.formats.clip_folder import save_clip
from unet_models.networks.autoencoder import build_autoencoder
from unet_models.networks.clip import build_clip
from unet_models.networks.tokenizer import train_tokenizer
from unet_models.specs.encoders import AlignmentSpec, AutoencoderSpec

CAPTIONS = ["a small red circle", "a large blue square above a small red circle", "a cat", "emoji of a cat"] * 3
CLIP = AlignmentSpec(width=16, num_layers=1, num_heads=2, num_tokens=12, vector_size=8)
AUTOENCODER = AutoencoderSpec(channels=(8, 16), kl_weight=0.5)


def image_batch(num: int = 2) -> ImageBatch:
    """Draw images of 16 pixels, the same each time."""
    images = torch.randint(0, 256, (num, 3, 16, 16), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    return ImageBatch(images, tuple(range(num)), tuple(map(str, range(num))), 0)


def write_clip(folder: Path, resolution: int) -> Path:
    """Write a CLIP that nobody trained, as a user's own would lie there; return its folder."""
    torch.manual_seed(0)
    spec = AlignmentSpec(vocab_size=600, num_tokens=16, width=32, num_layers=1, num_heads=2, vector_size=8)
    tokenizer = train_tokenizer(["a wide picture number 7"], spec.vocab_size, spec.num_tokens)
    folder.mkdir()
    save_clip(folder, build_clip(spec, tokenizer, resolution), tokenizer, resolution)
    return folder


def write_autoencoder(folder: Path, resolution: int) -> Path:
    """Write an autoencoder that nobody trained; return its folder."""
    torch.manual_seed(0)
    build_autoencoder(AutoencoderSpec(channels=(8, 8, 8)), resolution).save_pretrained(folder)
    return folder
