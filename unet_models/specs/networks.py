"""Configuration of the networks."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from data_pipelines.specs import Spec


class UNetSpec(Spec):
    """Architecture of a segmentation U-Net, ``unet_models.networks.unet.UNet``."""

    channels: tuple[int, ...] = (32, 64, 128, 256)
    """Feature channels of each stage, full resolution first."""
    strides: tuple[int | tuple[int, ...], ...] | None = None
    """Downsampling factors between stages, one entry fewer than ``channels``; an entry is one factor for all axes, or
    one per axis. None: 2 on every axis."""
    num_convs: int = Field(default=2, ge=1)
    """Convolutions in each encoder stage."""
    num_decoder_convs: int = Field(default=2, ge=1)
    """Convolutions in each decoder stage."""
    block: Literal["plain", "residual", "separable"] = "plain"
    """Convolution block: ``plain`` is convolution, normalisation, activation; ``residual`` adds an identity shortcut
    around each stage (He 2016); ``separable`` uses depthwise-separable convolutions, with far fewer weights (Howard
    2017)."""
    norm: Literal["instance", "batch", "group", "none"] = "instance"
    """Normalisation after each convolution. The statistics of ``batch`` depend on the number of workers, since each
    computes them over its own share of the batch."""
    activation: Literal["leaky_relu", "relu", "gelu", "silu"] = "leaky_relu"
    """Activation function after each normalisation."""
    downsample: Literal["strided", "max_pool"] = "strided"
    """Downsampling between encoder stages: a strided first convolution (nnU-Net), or max pooling (Ronneberger 2015)."""
    upsample: Literal["transposed", "linear"] = "transposed"
    """Upsampling between decoder stages: a transposed convolution, or a 1x1 convolution followed by linear
    interpolation."""
    upsample_bias: bool = True
    """Add a bias to the transposed convolutions."""
    skip: Literal["concat", "add", "gated"] = "concat"
    """Skip connection: encoder features are concatenated with the decoder's, added to them, or weighted by an
    attention gate and then concatenated (Oktay 2018)."""
    deep_supervision: int = Field(default=0, ge=0)
    """Number of coarser decoder stages whose predictions also enter the training loss; 0: full resolution alone."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Probability of dropping a channel after each activation during training; 0: no dropout. The dropped channels
    depend on the number of workers."""

    @model_validator(mode="after")
    def _check_stages(self) -> Self:
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
    """Architecture of the denoising U-Net of latent diffusion, ``unet_models.networks.denoiser.Denoiser``."""

    in_channels: int = Field(default=4, ge=1)
    """Input channels: those of the noisy latents, and of conditions concatenated to them (9 for inpainting)."""
    out_channels: int = Field(default=4, ge=1)
    """Output channels: those of the prediction."""
    channels: tuple[int, ...] = (320, 640, 1280, 1280)
    """Feature channels of each level, full resolution first."""
    attention_levels: tuple[bool, ...] = (True, True, True, False)
    """Levels with a transformer after each residual block, one entry per level; the middle block always has one."""
    num_res_blocks: int = Field(default=2, ge=1)
    """Residual blocks in each encoder level; each decoder level has one more."""
    num_heads: int = Field(default=8, ge=1)
    """Attention heads of every transformer block."""
    num_transformer_blocks: int = Field(default=1, ge=1)
    """Transformer blocks in each transformer."""
    context_dim: int | None = Field(default=128, ge=1)
    """Width of the text states that cross-attention reads. None: self-attention alone."""
    num_groups: int = Field(default=32, ge=1)
    """Groups of each group normalisation."""
    time_conditioning: Literal["additive", "film"] = "additive"
    """Conditioning of residual blocks on the timestep: its embedding is added to the features (Ho 2020), or scales
    and shifts them after normalisation (FiLM, Perez 2018)."""
    num_class_embeds: int | None = Field(default=None, ge=1)
    """Number of class labels for class conditioning. None: no class conditioning."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Dropout probability inside residual blocks during training; 0: no dropout. The dropped values depend on the
    number of workers."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: saves memory, takes about a third more time."""

    @model_validator(mode="after")
    def _check_levels(self) -> Self:
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
