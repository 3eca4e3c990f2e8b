"""Specs of published networks."""

from __future__ import annotations

from unet_models.specs.networks import DenoiserSpec, UNetSpec


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
