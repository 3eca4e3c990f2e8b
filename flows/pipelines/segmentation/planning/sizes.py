"""Patch and batch: as much of an image as the memory holds, then as many patches (Isensee 2021, suppl. note 6)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from flows.pipelines.segmentation.planning.networks import NETWORKS, PlannedNetwork
from flows.pipelines.segmentation.planning.topology import Topology, plan_topology

BASE_CHANNELS = 32
MAX_CHANNELS = {2: 512, 3: 320}
"""Channels at full resolution, doubled with each stage up to a limit by number of axes."""
REFERENCE_BATCH = {2: 12, 3: 2}
"""Batch that the memory of a planned network is stated for, by number of axes."""
LARGEST_PATCH = {2: 2048**2, 3: 256**3}
"""Voxels of the patch that planning begins with."""
SMALLEST_BATCH = 2


@dataclass(frozen=True, slots=True)
class Sizes:
    """Patch, topology, channels and batch."""

    topology: Topology
    channels: tuple[int, ...]
    batch_size: int
    features: int
    """Values of all feature maps of one patch."""
    is_limited_by_data: bool
    """True where the batch would be larger, were the data set."""


def plan_sizes(
    spacing: Sequence[float],
    median_shape: Sequence[float],
    num_voxels: float,
    num_classes: int,
    memory_gb: float,
    network: PlannedNetwork = NETWORKS["nnunet"],
) -> Sizes:
    """Plan for images of ``median_shape`` voxels of ``spacing`` mm, in one order of axes; ``num_voxels`` in all.

    The patch begins with the shape of the image's field of view, is cut to the median image, and loses voxels along
    the axis that covers most of it until two patches fit into the memory.
    """
    ndim = len(spacing)
    topology = plan_topology(spacing, _first_patch(spacing, median_shape))
    limit = network.features_per_gb[ndim] * memory_gb
    batch = REFERENCE_BATCH[ndim] if network.patch_leaves_room else SMALLEST_BATCH
    while _features(topology, num_classes, network) / REFERENCE_BATCH[ndim] * batch > limit:
        topology = plan_topology(spacing, _smaller_patch(topology, spacing, median_shape))
    features = _features(topology, num_classes, network)
    by_memory = round(limit / features * REFERENCE_BATCH[ndim])
    by_data = num_voxels * network.largest_share / math.prod(topology.patch_size)
    batch_size = max(SMALLEST_BATCH, round(min(by_memory, by_data)))
    return Sizes(topology, channels_of(topology), batch_size, features, is_limited_by_data=by_data < by_memory)


def channels_of(topology: Topology) -> tuple[int, ...]:
    """Return the channels of each stage."""
    most = MAX_CHANNELS[len(topology.patch_size)]
    return tuple(min(BASE_CHANNELS * 2**stage, most) for stage in range(topology.num_stages))


def _first_patch(spacing: Sequence[float], median_shape: Sequence[float]) -> list[float]:
    """Return the largest patch that has the same extent in mm along every axis, within the median image."""
    ndim = len(spacing)
    density = [1 / each for each in spacing]
    scale = (LARGEST_PATCH[ndim] / math.prod(density)) ** (1 / ndim)
    return [min(round(each * scale), size) for each, size in zip(density, median_shape, strict=True)]


def _smaller_patch(topology: Topology, spacing: Sequence[float], median_shape: Sequence[float]) -> list[int]:
    """Shorten the axis along which the patch covers most of the image, by as much as its topology asks for."""
    patch = list(topology.patch_size)
    covered = [size / median for size, median in zip(patch, median_shape, strict=True)]
    axis = max(range(len(patch)), key=lambda each: (covered[each], each))
    shorter = [size - topology.divisors[axis] * (each == axis) for each, size in enumerate(patch)]
    patch[axis] -= plan_topology(spacing, shorter).divisors[axis]
    return patch


def _features(topology: Topology, num_classes: int, network: PlannedNetwork) -> int:
    """Count the values of all feature maps of one patch."""
    sizes = [list(topology.patch_size)]
    for stride in topology.strides:
        sizes.append([size // step for size, step in zip(sizes[-1], stride, strict=True)])
    return network.count_features(channels_of(topology), [math.prod(size) for size in sizes], num_classes)
