"""Text and sound of a case for the network that reads them, in training, evaluation and prediction alike."""

from __future__ import annotations

import logging
from collections.abc import Collection
from itertools import combinations

import torch
from torch import nn

from data_pipelines.errors import ConfigError, InputError
from data_pipelines.shards.reader import ShardReader
from data_pipelines.volumes.modalities import NOTHING, Modalities, Sizes, count_cut
from unet_models.networks.multimodal import Conditioned
from unet_models.specs.networks import FusionSpec, UNetSpec

logger = logging.getLogger(__name__)


def sizes_of(spec: UNetSpec) -> Sizes:
    """Return the lengths of text and sound that a network reads."""
    return NOTHING if spec.fusion is None else Sizes(spec.fusion.text_bytes, spec.fusion.num_samples)


def with_modalities(network: nn.Module, spec: UNetSpec, given: Modalities, device: torch.device) -> nn.Module:
    """Return a network of images alone: the text and the sound of one case go with every window.

    Raises InputError where the network reads none, and some are given.
    """
    if spec.fusion is None:
        if given.text is not None or given.sound is not None:
            raise InputError("this model reads images alone, got a text or a sound (train.model.fusion)")
        return network
    text, sound = (torch.from_numpy(array)[None].to(device) for array in given.arrays(sizes_of(spec)))
    read = spec.fusion.modalities
    return Conditioned(
        network, text if "text" in read else None, sound if "sound" in read else None, has_image=given.has_image
    )


def missing_modalities(spec: UNetSpec, given: Modalities) -> list[str]:
    """Return which of the texts and sounds that a network reads a case does not have."""
    read = spec.fusion.modalities if spec.fusion is not None else ()
    return [name for name in ("text", "sound") if name in read and getattr(given, name) is None]


def check_modalities(spec: UNetSpec, reader: ShardReader) -> None:
    """Log how many texts and sounds are missing, cut or not read. Raises ConfigError where no sample has one."""
    rows = range(len(reader.shard_of))
    sizes = sizes_of(spec)
    counts = count_cut(reader, rows, sizes)
    for name, length in (("texts", sizes.text_bytes), ("sounds", sizes.samples)):
        if length and counts.get(f"{name} missing") == len(rows):
            raise ConfigError(
                f"train.model.fusion reads {name}, and no case has one: put them into {name}/ beside images/, or set "
                f"{'text_bytes' if name == 'texts' else 'sound_seconds'} to 0"
            )
    if counts:
        logger.warning("of %d cases: %s", len(rows), ", ".join(f"{count} {what}" for what, count in counts.items()))


def subsets_of(spec: FusionSpec | None) -> list[str]:
    """Return the proper subsets of the modalities, as ``image,text``; none for a network of images alone."""
    names: Collection[str] = spec.modalities if spec is not None else ()
    return [",".join(chosen) for size in range(1, len(names)) for chosen in combinations(names, size)]
