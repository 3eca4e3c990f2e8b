"""Configuration of the networks."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from data_pipelines.specs import Spec


class UNetSpec(Spec):
    """One segmentation U-Net: what its stages are made of. See ``unet_models.unet.UNet``."""

    channels: tuple[int, ...] = (32, 64, 128, 256)
    """Feature channels of each stage, full resolution first."""
    strides: tuple[int | tuple[int, ...], ...] | None = None
    """Downsampling between stages, one entry fewer than ``channels``; none: 2 on every axis."""
    num_convs: int = Field(default=2, ge=1)
    """Convolutions in each encoder stage."""
    num_decoder_convs: int = Field(default=2, ge=1)
    """Convolutions in each decoder stage."""
    block: Literal["plain", "residual", "separable"] = "plain"
    """conv-norm-act; the same with an identity shortcut (He 2016); or depthwise-separable convolutions (light)."""
    norm: Literal["instance", "batch", "group", "none"] = "instance"
    """Normalisation after each convolution. Batch statistics depend on how samples are spread over workers."""
    activation: Literal["leaky_relu", "relu", "gelu", "silu"] = "leaky_relu"
    """Non-linearity after each normalisation."""
    downsample: Literal["strided", "max_pool"] = "strided"
    """A strided first convolution (nnU-Net), or max pooling (Ronneberger 2015)."""
    upsample: Literal["transposed", "linear"] = "transposed"
    """A transposed convolution, or linear interpolation followed by a 1x1 convolution."""
    upsample_bias: bool = True
    """Whether the transposed convolutions carry a bias."""
    skip: Literal["concat", "add", "gated"] = "concat"
    """How encoder features meet the decoder's: concatenated, added, or gated by attention (Oktay 2018)."""
    deep_supervision: int = Field(default=0, ge=0)
    """Number of coarser decoder stages that also predict during training."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Channel dropout after each convolution's activation in encoder and decoder. Which channels are dropped depends on
    how samples are spread over workers."""

    @model_validator(mode="after")
    def _stages_agree(self) -> Self:
        if len(self.channels) < 2:
            raise ValueError(f"channels: a U-Net needs at least 2 stages, got {list(self.channels)}")
        if self.strides is not None and len(self.strides) != len(self.channels) - 1:
            raise ValueError(
                f"strides: need {len(self.channels) - 1} entries for {len(self.channels)} stages, "
                f"got {len(self.strides)}"
            )
        if self.deep_supervision >= len(self.channels) - 1:
            raise ValueError(
                f"deep_supervision: at most {len(self.channels) - 2} coarser stages exist, got {self.deep_supervision}"
            )
        return self


class DenoiserSpec(Spec):
    """The noise predictor of latent diffusion. See ``unet_models.denoiser.Denoiser``."""

    in_channels: int = Field(default=4, ge=1)
    """Channels of the noisy latents, concatenated conditions included (9 for inpainting)."""
    out_channels: int = Field(default=4, ge=1)
    """Channels of the prediction."""
    channels: tuple[int, ...] = (320, 640, 1280, 1280)
    """Feature channels of each level, full resolution first."""
    attention_levels: tuple[bool, ...] = (True, True, True, False)
    """Which levels have a transformer block after each residual block; the middle always has one."""
    num_res_blocks: int = Field(default=2, ge=1)
    """Residual blocks in each encoder level; each decoder level has one more."""
    num_heads: int = Field(default=8, ge=1)
    """Attention heads, on every level."""
    num_transformer_blocks: int = Field(default=1, ge=1)
    """Transformer blocks in each attention block."""
    context_dim: int | None = Field(default=768, ge=1)
    """Width of the text states that cross-attention reads; none: self-attention alone."""
    num_groups: int = Field(default=32, ge=1)
    """Groups of each group normalisation."""
    time_conditioning: Literal["additive", "film"] = "additive"
    """How the timestep enters a residual block: added, or as scale and shift (FiLM, Perez 2018)."""
    num_class_embeds: int | None = Field(default=None, ge=1)
    """Number of class labels that may be given beside the timestep; none: no class conditioning."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Dropout inside residual blocks. What is dropped depends on how samples are spread over workers."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, about a third more time."""

    @model_validator(mode="after")
    def _levels_agree(self) -> Self:
        if len(self.attention_levels) != len(self.channels):
            raise ValueError(
                f"attention_levels: need one entry for each of the {len(self.channels)} levels, "
                f"got {len(self.attention_levels)}"
            )
        for width in self.channels:
            if width % self.num_groups or width % self.num_heads:
                raise ValueError(
                    f"channels: each must be divisible by num_groups ({self.num_groups}) and num_heads "
                    f"({self.num_heads}), got {width}"
                )
        return self
