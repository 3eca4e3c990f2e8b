"""Configuration of training the encoders of latent diffusion: the autoencoder and the small CLIP."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from unet_models.specs.loop import LoopSpec
from unet_models.specs.networks import Count


class AutoencoderSpec(LoopSpec):
    """Training of the image autoencoder: a reconstruction loss, and a KL term that keeps latents near a normal."""

    channels: tuple[Count, ...] = Field(default=(32, 64, 64), min_length=1)
    """Feature channels of each level; each level but the last halves height and width. All are multiples of the groups
    of the normalisation: half of the first level's, at most 32."""
    num_res_blocks: int = Field(default=1, ge=1)
    """Residual blocks in each level."""
    latent_channels: int = Field(default=4, ge=1)
    """Channels of the latents."""
    kl_weight: float = Field(default=1e-6, ge=0)
    """Weight of the KL term, summed over the latent, relative to the squared error, summed over the image."""
    adversarial_weight: float = Field(default=0.0, ge=0)
    """Weight of the adversarial loss of a patch discriminator, trained along, which sharpens edges. 0: no
    discriminator."""
    adversarial_start: int = Field(default=0, ge=0)
    """Optimizer step from which the adversarial loss counts; before it reconstructions hardly look like images."""

    @property
    def num_groups(self) -> int:
        """Groups of the normalisation, in every level."""
        return min(32, self.channels[0] // 2)

    @model_validator(mode="after")
    def _check_groups(self) -> Self:
        if not self.num_groups or any(channels % self.num_groups for channels in self.channels):
            raise ValueError(
                "channels: all must be multiples of the groups of the normalisation, half of the first, at most 32 "
                f"({self.num_groups}); got {list(self.channels)}"
            )
        return self


class AlignmentSpec(LoopSpec):
    """Training of a small CLIP: text and image encoders whose vectors are aligned by contrast (Radford 2021)."""

    vocab_size: int = Field(default=2048, ge=514)
    """Maximum number of tokens of the byte-pair vocabulary, which is learned from the captions."""
    num_tokens: int = Field(default=32, ge=4)
    """Length in tokens that every caption is truncated or padded to, start and end tokens included."""
    width: int = Field(default=128, ge=8)
    """Hidden size of both encoders, and of the text states that cross-attention reads."""
    num_layers: int = Field(default=3, ge=1)
    """Transformer layers of each encoder."""
    num_heads: int = Field(default=4, ge=1)
    """Attention heads of each layer."""
    vector_size: int = Field(default=64, ge=2)
    """Dimension of the joint embedding space of texts and images."""
    patch_pixels: int = Field(default=8, ge=1)
    """Side of the image encoder's patches, in pixels."""

    @model_validator(mode="after")
    def _check_width_and_batch(self) -> Self:
        if self.width % self.num_heads:
            raise ValueError(f"width ({self.width}) must be a multiple of num_heads ({self.num_heads})")
        if self.micro_batch_size is not None:
            raise ValueError(
                "micro_batch_size: every pair is compared with all others of the batch, which must not be split; "
                f"leave it out or lower global_batch_size, got {self.micro_batch_size}"
            )
        return self
