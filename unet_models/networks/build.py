"""Segmentation network of a spec: a new network is added here and in ``specs.networks``."""

from __future__ import annotations

from unet_models.networks.blocks import SegmentationNetwork
from unet_models.networks.unet import UNet
from unet_models.specs.networks import UNetSpec


def build_network(spec: UNetSpec, in_channels: int, num_classes: int, ndim: int) -> SegmentationNetwork:
    """Build the segmentation network of ``spec`` with random weights, for images of ``ndim`` spatial axes.

    It maps images ``(B, in_channels, *spatial)`` to logits ``(B, num_classes, *spatial)`` (see ``UNet.forward``).

    Raises ConfigError where the strides of ``spec`` do not fit ``ndim``.
    """
    return UNet(spec, in_channels, num_classes, ndim)
