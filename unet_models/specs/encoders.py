"""Configuration of training the encoders of latent diffusion: the autoencoder and the small CLIP."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from unet_models.specs.loop import LoopSpec


class AutoencoderSpec(LoopSpec):
    """One training of the image autoencoder: reconstruction and a KL term that keeps latents near a normal."""

    channels: tuple[int, ...] = (32, 64, 64)
    """Feature channels of each level; each level but the last halves the sides."""
    num_res_blocks: int = Field(default=1, ge=1)
    """Residual blocks in each level."""
    latent_channels: int = Field(default=4, ge=1)
    """Channels of the latents."""
    kl_weight: float = Field(default=1e-6, ge=0)
    """Weight of the KL term, summed over the latent, beside the reconstruction error, summed over the image."""
    adversarial_weight: float = Field(default=0.0, ge=0)
    """Weight of fooling a discriminator of patches, which is trained along and makes edges sharper; 0: none."""
    adversarial_start: int = Field(default=0, ge=0)
    """Step from which the discriminator counts: until then there is little that looks like an image."""


class AlignmentSpec(LoopSpec):
    """One training of a small CLIP: a text tower and an image tower whose vectors agree (Radford 2021)."""

    vocab_size: int = Field(default=2048, ge=514)
    """Most tokens of the byte-pair vocabulary learnt from the captions."""
    num_tokens: int = Field(default=32, ge=4)
    """Length that every caption is cut or padded to, start and end marks included."""
    width: int = Field(default=128, ge=8)
    """Width of both towers, and of the text states that the U-Net reads."""
    num_layers: int = Field(default=3, ge=1)
    """Transformer layers of each tower."""
    num_heads: int = Field(default=4, ge=1)
    """Attention heads of each layer."""
    vector_size: int = Field(default=64, ge=2)
    """Dimension of the space in which text and images meet."""
    patch_pixels: int = Field(default=8, ge=1)
    """Side of the image tower's patches."""

    @model_validator(mode="after")
    def _pairs_meet(self) -> Self:
        if self.width % self.num_heads:
            raise ValueError(f"width ({self.width}) must be a multiple of num_heads ({self.num_heads})")
        if self.micro_batch_size is not None:
            raise ValueError(
                "micro_batch_size: every pair is compared with all others of the batch, which must not be split; "
                f"leave it out or lower global_batch_size, got {self.micro_batch_size}"
            )
        return self
