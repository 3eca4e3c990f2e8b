"""Pixels as the networks of latent diffusion see them."""

from __future__ import annotations

from jaxtyping import Float, UInt8
from torch import Tensor


def scale_images(images: UInt8[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Scale uint8 values 0..255 to float32 values -1..1."""
    return images.float() / 127.5 - 1
