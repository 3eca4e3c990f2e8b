"""Networks that a plan may be for: those of nnU-Net, with the memory that it counts for them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, islice, repeat

from data_pipelines.errors import ConfigError


@dataclass(frozen=True, slots=True)
class PlannedNetwork:
    """A network whose stages follow from the patch."""

    memory_gb: float
    """GPU memory that it is meant for."""
    features_per_gb: dict[int, float]
    """Number of axes to the values of all feature maps that train within one GB, for nnU-Net's usual batch."""
    largest_share: float = 0.05
    """Most of all voxels of the data set that one batch may hold."""
    patch_leaves_room: bool = False
    """The patch is cut until nnU-Net's usual batch fits into the memory, not until the smallest does."""
    first_blocks: tuple[int, ...] = ()
    """Blocks of the first encoder stages; further ones have the last number."""
    blocks: int = 2
    """Convolutions of each encoder stage, or where it is residual blocks of two."""
    decoder_blocks: int = 2
    """Convolutions of each decoder stage."""
    preset: str | None = None
    """``train.model.preset``; None: the plain U-Net."""

    def num_blocks(self, num_stages: int) -> tuple[int, ...]:
        """Return the blocks of each encoder stage."""
        return tuple(islice(chain(self.first_blocks, repeat(self.blocks)), num_stages))

    def count_features(self, channels: Sequence[int], voxels: Sequence[int], num_classes: int) -> int:
        """Count the values of all feature maps: convolutions, upsampling, and the logits.

        ``channels`` and ``voxels`` are those of each stage.
        """
        stages = list(zip(channels, voxels, self.num_blocks(len(channels)), strict=True))
        if self.preset is None:
            encoder = sum(blocks * width * count for width, count, blocks in stages)
        else:  # two convolutions a block, the projection of each stage but the first, and the stem
            encoder = sum((2 * blocks + 1) * width * count for width, count, blocks in stages)
        decoder = sum((self.decoder_blocks + 1) * width * count for width, count, _ in stages[:-1])
        return encoder + decoder + num_classes * voxels[0]


def _residual_encoder(memory_gb: float, features_2d: float, features_3d: float) -> PlannedNetwork:
    return PlannedNetwork(
        memory_gb,
        {2: features_2d / memory_gb, 3: features_3d / memory_gb},
        largest_share=1.0,
        patch_leaves_room=True,
        first_blocks=(1, 3, 4),
        blocks=6,
        decoder_blocks=1,
        preset="residual_encoder",
    )


NETWORKS = {
    "nnunet": PlannedNetwork(8, {2: 85_000_000 / 8, 3: 560_000_000 / 8}),
    "residual_encoder_m": _residual_encoder(8, 135_000_000, 680_000_000),
    "residual_encoder_l": _residual_encoder(24, 380_000_000, 2_100_000_000),
    "residual_encoder_xl": _residual_encoder(40, 560_000_000, 3_600_000_000),
}
"""Isensee 2021, supplementary note 6, and Isensee 2024: nnU-Net's planners ``ExperimentPlanner``,
``nnUNetPlannerResEncM``, ``L`` and ``XL``."""


def find_network(name: str) -> PlannedNetwork:
    """Return a network of ``NETWORKS``. Raises ConfigError for another name."""
    if name not in NETWORKS:
        raise ConfigError(f"--network: there is no plan for {name}; choose {', '.join(NETWORKS)}")
    return NETWORKS[name]
