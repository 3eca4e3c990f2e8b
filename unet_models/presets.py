"""Networks people know by name."""

from __future__ import annotations

from unet_models.specs import UNetSpec


def unet_2015() -> UNetSpec:
    """Ronneberger 2015 with padded convolutions and batch norm; 31,042,434 parameters for 1 input and 2 classes."""
    return UNetSpec(
        channels=(64, 128, 256, 512, 1024),
        norm="batch",
        activation="relu",
        downsample="max_pool",
    )


def nnunet_hippocampus() -> UNetSpec:
    """What nnU-Net's planner gives for Task04: 4 stages, 5.60 M parameters in 3-D."""
    return UNetSpec(channels=(32, 64, 128, 256), upsample_bias=False, deep_supervision=2)
