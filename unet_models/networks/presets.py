"""Specs of published networks."""

from __future__ import annotations

from typing import Literal

from unet_models.specs.networks import DenoiserSpec, Skip, UNetSpec


def unet_2015() -> UNetSpec:
    """Build the spec of Ronneberger 2015, with padded convolutions and batch normalisation.

    31,042,434 parameters in 2-D for 1 input channel and 2 classes.
    """
    return UNetSpec(
        channels=(64, 128, 256, 512, 1024),
        norm="batch",
        activation="relu",
        downsample="max_pool",
    )


def attention_unet() -> UNetSpec:
    """Build the spec of Oktay 2018: the U-Net of 2015 with gated skips. 32,087,878 parameters in 2-D, 1 to 2."""
    return unet_2015().model_copy(update={"skip": "gated_coarse"})


def fcn(stride: Literal[8, 16, 32]) -> UNetSpec:
    """Build the spec of FCN-8s, -16s or -32s (Long 2015) over the convolutions of VGG-16, with batch normalisation."""
    used: tuple[Skip, ...] = tuple("add" if stride <= 2**level < 32 else "none" for level in range(5))
    return UNetSpec(
        channels=(64, 128, 256, 512, 512, 512),
        num_blocks=(2, 2, 3, 3, 3, 1),
        norm="batch",
        activation="relu",
        downsample="max_pool",
        decoder="fcn",
        skip=used,
    )


def unet_plus_plus() -> UNetSpec:
    """Build the spec of Zhou 2018: 32 to 512 channels, dense paths between encoder and decoder."""
    return UNetSpec(
        channels=(32, 64, 128, 256, 512),
        norm="batch",
        activation="relu",
        downsample="max_pool",
        upsample="linear",
        decoder="nested",
    )


def residual_encoder(num_stages: int = 6) -> UNetSpec:
    """Build the spec of nnU-Net's residual-encoder presets in 3-D (Isensee 2024).

    M, L and XL share it: they differ in patch size and batch size, for 8, 24 and 40 GB of GPU memory, and so in the
    number of stages.
    """
    return UNetSpec(
        channels=tuple(min(32 * 2**stage, 320) for stage in range(num_stages)),
        num_blocks=(1, 3, 4, 6, 6, 6, 6, 6, 6)[:num_stages],
        num_decoder_blocks=1,
        block="residual_encoder",
        decoder_block="plain",
        deep_supervision=num_stages - 2,
    )


def mednext_small(kernel_size: Literal[3, 5] = 3) -> UNetSpec:
    """Build the spec of MedNeXt-S (Roy 2023). The larger ones have another expansion in each stage, which is not built.

    5,551,816 parameters in 3-D, 1 to 2.
    """
    return UNetSpec(
        channels=(32, 64, 128, 256, 512),
        block="mednext",
        kernel_size=kernel_size,
        expansion=2,
        activation="gelu",
        skip="add",
        deep_supervision=3,
    )


def mobile_unet() -> UNetSpec:
    """Build the spec of a light U-Net of inverted residuals (MobileNetV2, Sandler 2018)."""
    return UNetSpec(channels=(16, 24, 32, 64, 96), block="inverted_residual", expansion=6, norm="batch", skip="add")


def shuffle_unet() -> UNetSpec:
    """Build the spec of a light U-Net of grouped convolutions and channel shuffle (ShuffleNet, Zhang 2018)."""
    return UNetSpec(channels=(32, 64, 128, 256, 512), block="shuffle", groups=4, norm="batch", activation="relu")


def nnunet_hippocampus() -> UNetSpec:
    """Build the spec that nnU-Net plans for Task04 (hippocampus): 4 stages, 5.60 M parameters in 3-D."""
    return UNetSpec(channels=(32, 64, 128, 256), upsample_bias=False, deep_supervision=2)


def stable_diffusion_1x() -> DenoiserSpec:
    """Build the spec of Stable Diffusion 1.x (Rombach 2022): 859,520,964 parameters in 686 tensors."""
    return DenoiserSpec(
        channels=(320, 640, 1280, 1280),
        attention_levels=(True, True, True, False),
        num_res_blocks=2,
        num_heads=8,
        context_dim=768,
    )
