"""Settings of colourisation by classes that follow from the shards: the weight of each quantised colour."""

from __future__ import annotations

import torch

from data_pipelines.loading.loader import ImageSamples
from data_pipelines.loading.order import evenly_spaced
from data_pipelines.shards.index import read_table
from data_pipelines.shards.reader import ShardReader
from unet_models.restoration.colourisation import count_colours, rebalancing_weights
from unet_models.specs.restoration import ColourisationSpec

MAX_IMAGES = 500
"""Training images whose colours are counted, evenly spaced."""


def weigh_colours(spec: ColourisationSpec, index_uri: str, shards_uri: str) -> list[float]:
    """Count the colours of training images, and return the weight of each in the loss."""
    index = read_table(index_uri)
    train = [row for row, side in enumerate(index["split"].to_pylist()) if side == "train"]
    images = ImageSamples(ShardReader(index, shards_uri))
    counts = torch.zeros((), dtype=torch.float64)
    for row in evenly_spaced(train, MAX_IMAGES):
        counts = counts + count_colours(images.pixels([row]).float() / 255)
    return rebalancing_weights(counts, spec.rebalance)
