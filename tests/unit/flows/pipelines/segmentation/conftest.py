"""Records that several tests start from."""

from __future__ import annotations

import pytest

from flows.pipelines.segmentation.shard import VolumeShardFigures
from tests.support.volumes import numbered


@pytest.fixture
def shard_figures() -> VolumeShardFigures:
    """Figures of shards that lie nowhere."""
    return VolumeShardFigures(
        num_train=20,
        num_val=5,
        num_new=25,
        shards="shards/a",
        shard_sizes={},
        dataset="spleens",
        num_quarantined=0,
        spacing=None,
        labels=numbered("background", "spleen", "lesion"),
        channels=("CT",),
    )
