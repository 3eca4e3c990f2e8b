"""Configuration of the denoisers of latent diffusion, one class per backbone."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Discriminator, Field, Tag, model_validator

from data_pipelines.specs import Spec

LongSkip = Literal["concat", "gated", "none"]


class ConditionedSpec(Spec):
    """Inputs and output that denoisers of every backbone have."""

    in_channels: int = Field(default=4, ge=1)
    """Input channels: those of the noisy latents, and of conditions concatenated to them (9 for inpainting)."""
    out_channels: int = Field(default=4, ge=1)
    """Output channels: those of the prediction."""
    context_dim: int | None = Field(default=128, ge=1)
    """Width of the text states that the network attends to. None: no text condition."""
    num_class_embeds: int | None = Field(default=None, ge=1)
    """Number of class labels: the classes of the data, and one more that stands for no class. None: no class
    condition."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: saves memory, takes about a third more time."""


class DenoisingUNetSpec(ConditionedSpec):
    """Architecture of the denoising U-Net, ``unet_models.networks.denoisers.unet.DenoisingUNet``."""

    backbone: Literal["unet"] = "unet"
    """Backbone, a file of ``unet_models/networks/denoisers``; the default."""
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
    num_groups: int = Field(default=32, ge=1)
    """Groups of each group normalisation."""
    skip: LongSkip | tuple[LongSkip, ...] = "concat"
    """Skip connections, one kind for all or one per level, full resolution first: encoder features are concatenated
    with the decoder's, weighted by an attention gate and then concatenated, or not used. diffusers has ``concat``."""
    time_conditioning: Literal["additive", "film"] = "additive"
    """Conditioning of residual blocks on the timestep: its embedding is added to the features (Ho 2020), or scales
    and shifts them after normalisation (FiLM, Perez 2018)."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Dropout probability inside residual blocks during training; 0: no dropout. The dropped values depend on the
    number of workers."""

    @model_validator(mode="after")
    def _check_levels(self) -> Self:
        if len(self.attention_levels) != len(self.channels):
            raise ValueError(
                f"attention_levels: need one entry for each of the {len(self.channels)} levels, "
                f"got {len(self.attention_levels)}"
            )
        if isinstance(self.skip, tuple) and len(self.skip) != len(self.channels):
            raise ValueError(
                f"skip: need one kind, or one for each of the {len(self.channels)} levels, got {len(self.skip)}"
            )
        for width in self.channels:
            if width % self.num_groups or width % self.num_heads:
                raise ValueError(
                    f"channels: each must be divisible by num_groups ({self.num_groups}) and num_heads "
                    f"({self.num_heads}), got {width}"
                )
        return self

    @property
    def skips(self) -> tuple[LongSkip, ...]:
        """Kind of the skip connections of each level, full resolution first."""
        return self.skip if isinstance(self.skip, tuple) else (self.skip,) * len(self.channels)


class TransformerSpec(ConditionedSpec):
    """Architecture of a vision transformer over patches of latents."""

    patch_size: int = Field(default=2, ge=1)
    """Side of the square of latent pixels that one token stands for; latents are padded to its multiple."""
    width: int = Field(default=384, ge=4)
    """Width of the tokens, a multiple of 4 (two coordinates, each as sines and cosines) and of ``num_heads``."""
    num_layers: int = Field(default=12, ge=1)
    """Transformer blocks."""
    num_heads: int = Field(default=6, ge=1)
    """Attention heads of every transformer block."""

    @model_validator(mode="after")
    def _check_width(self) -> Self:
        for name, divisor in (("num_heads", self.num_heads), ("4", 4)):
            if self.width % divisor:
                raise ValueError(f"width: must be divisible by {name} ({divisor}), got {self.width}")
        return self


class UViTSpec(TransformerSpec):
    """Architecture of U-ViT (Bao 2023), ``unet_models.networks.denoisers.uvit.UViT``; the defaults are U-ViT-S."""

    backbone: Literal["uvit"] = "uvit"
    """Backbone, a file of ``unet_models/networks/denoisers``."""
    width: int = Field(default=512, ge=4)
    """Width of the tokens, a multiple of 4 (two coordinates, each as sines and cosines) and of ``num_heads``."""
    num_layers: int = Field(default=13, ge=1)
    """Transformer blocks, an odd number: pairs joined by long skip connections, and one in the middle."""
    num_heads: int = Field(default=8, ge=1)
    """Attention heads of every transformer block."""

    @model_validator(mode="after")
    def _check_layers(self) -> Self:
        if self.num_layers % 2 == 0:
            raise ValueError(
                f"num_layers: must be odd, pairs of blocks around the one in the middle, got {self.num_layers}"
            )
        return self


class DiTSpec(TransformerSpec):
    """Architecture of DiT (Peebles 2023), ``unet_models.networks.denoisers.dit.DiT``; the defaults are DiT-S."""

    backbone: Literal["dit"] = "dit"
    """Backbone, a file of ``unet_models/networks/denoisers``."""


def _backbone(value: Any) -> str:
    """Return the tag of a spec or of the fields of one; without ``backbone`` it is a U-Net's."""
    found = value.get("backbone", "unet") if isinstance(value, dict) else getattr(value, "backbone", "unet")
    return str(found)


DenoiserSpec = Annotated[
    Annotated[DenoisingUNetSpec, Tag("unet")] | Annotated[UViTSpec, Tag("uvit")] | Annotated[DiTSpec, Tag("dit")],
    Discriminator(
        _backbone,
        custom_error_type="backbone",
        custom_error_message="backbone: unknown denoiser; choose unet, uvit or dit",
    ),
]
"""Architecture of a denoiser: the field ``backbone`` chooses among them, the U-Net where it is left out."""
