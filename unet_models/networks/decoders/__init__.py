"""Decoders, one file per type. The name of a file is its name in ``UNetSpec.decoder``.

unet    one stage per resolution, each joined with the encoder's features (Ronneberger 2015)
nested  dense paths of stages between encoder and decoder (U-Net++, Zhou 2018)
fcn     class scores of several resolutions, upsampled and added, without stages of its own (FCN, Long 2015)

A file has a class ``Decoder``: features of the encoder, finest first, to logits, finest first; one where the network
does not train, else as many as ``deep_supervision`` asks for. Adding a type is adding a file.
"""

from __future__ import annotations

import importlib

from torch import nn

from unet_models.networks.parts import Parts
from unet_models.specs.networks import Strides, UNetSpec


def build_decoder(spec: UNetSpec, ndim: int, strides: Strides, num_classes: int, parts: Parts) -> nn.Module:
    """Build the decoder that ``spec.decoder`` names."""
    module = importlib.import_module(f"{__name__}.{spec.decoder}")
    decoder: nn.Module = module.Decoder(spec, ndim, strides, num_classes, parts)
    return decoder
