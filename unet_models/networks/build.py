"""Network of a spec: segmentation networks and denoisers."""

from __future__ import annotations

import math

from torch import nn

from unet_models.networks.decoders import build_decoder
from unet_models.networks.denoiser import Denoiser
from unet_models.networks.denoisers.dit import DiT
from unet_models.networks.denoisers.unet import DenoisingUNet
from unet_models.networks.denoisers.uvit import UViT
from unet_models.networks.multimodal import Fusion, MultimodalUNet
from unet_models.networks.parts import Parts
from unet_models.networks.unet import Encoder, UNet
from unet_models.specs.denoisers import DenoiserSpec
from unet_models.specs.networks import UNetSpec
from unet_models.specs.valid import border_of, remainder_of

CONVOLUTIONS = (nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d, nn.ConvTranspose3d)


def build_network(
    spec: UNetSpec,
    in_channels: int,
    num_classes: int,
    ndim: int = 3,
    parts: Parts | None = None,
    num_previous: int = 0,
) -> UNet:
    """Build the segmentation network of ``spec`` with random weights, for images of ``ndim`` spatial axes.

    It maps images ``(B, in_channels, *spatial)`` to logits ``(B, num_classes, *spatial)``, which valid convolutions
    make smaller (see ``UNet.forward``). With ``num_previous`` images have one channel more, the last: the label map of
    a previous network, of so many classes beside the background.

    ``parts`` take the place of those that the spec names.

    Raises ConfigError where the strides of ``spec`` do not fit ``ndim``.
    """
    strides = spec.strides_per_axis(ndim)
    divisor = tuple(math.prod(stride[axis] for stride in strides) for axis in range(ndim))
    parts = parts or Parts.of(spec)
    encoder = Encoder(spec, ndim, strides, in_channels + num_previous, parts.encoder_block)
    decoder = build_decoder(spec, ndim, strides, num_classes, parts)
    network = UNet(encoder, decoder, divisor, border_of(spec, ndim), remainder_of(spec, ndim), num_previous)
    network.apply(_initialise)
    if spec.fusion is None:
        return network
    return MultimodalUNet(network, Fusion(spec.fusion, spec.channels[-1]), in_channels)


def build_denoiser(spec: DenoiserSpec) -> Denoiser:
    """Build the denoiser of ``spec`` with random weights."""
    match spec.backbone:
        case "unet":
            return DenoisingUNet(spec)
        case "uvit":
            return UViT(spec)
        case "dit":
            return DiT(spec)


def _initialise(module: nn.Module) -> None:
    """Initialise convolutions as nnU-Net does: He 2015 with a negative slope of 0.01, biases 0."""
    if isinstance(module, CONVOLUTIONS):
        nn.init.kaiming_normal_(module.weight, a=0.01)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
