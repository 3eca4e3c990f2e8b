"""Parts of a segmentation network that a caller may give in place of those that a spec names."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from data_pipelines.errors import ConfigError
from unet_models.networks.blocks import Block, find_block
from unet_models.networks.skips import SkipConnection
from unet_models.specs.networks import UNetSpec

BuildSkip = Callable[..., nn.Module]
"""Builds a skip connection with the arguments of ``SkipConnection``. The module has ``out_channels``; its call joins
encoder features (B, C, *spatial), upsampled decoder features (B, C, *spatial) and those before upsampling."""


@dataclass(frozen=True, slots=True)
class Parts:
    """Blocks of encoder and decoder, and skip connection. ``Parts.of`` has those of a spec."""

    encoder_block: Block
    """Object with a class ``Stage``, and if wanted ``Stem``, as a file of ``unet_models/networks/blocks`` has."""
    decoder_block: Block
    """Object with a class ``Stage``, and if wanted ``Upsample``."""
    skip: BuildSkip = SkipConnection

    @classmethod
    def of(
        cls,
        spec: UNetSpec,
        encoder_block: Block | None = None,
        decoder_block: Block | None = None,
        skip: BuildSkip | None = None,
    ) -> Parts:
        """Return the parts that ``spec`` names, but the given ones; the decoder's block is by default the encoder's.

        Raises ConfigError for a part that the decoder has no place for.
        """
        misplaced = {"skip": skip} if spec.decoder == "nested" else {"skip": skip, "decoder_block": decoder_block}
        if spec.decoder != "unet" and (given := [name for name, part in misplaced.items() if part is not None]):
            raise ConfigError(f"{' and '.join(given)}: decoder {spec.decoder} has no place for it; set decoder to unet")
        encoder = encoder_block or find_block(spec.block)
        decoder = decoder_block or (find_block(spec.decoder_block) if spec.decoder_block else encoder)
        return cls(encoder, decoder, skip or SkipConnection)
