"""Settings of a network and its batch: stages, strides, kernels, channels, and samples per step."""

from __future__ import annotations

import math
from collections.abc import Iterator

from flows.pipelines.segmentation.planning.options import PlanningOptions, Setting
from flows.pipelines.segmentation.planning.sizes import Sizes, channels_of

CPU_CHANNELS, CPU_BATCH = 16, 2
"""Width and batch without a GPU: more steps in the same time."""
CPU_SLICE_VOXELS = 2 * 40 * 56 * 40
"""Voxels of a batch of slices without a GPU."""


def plan_model(sizes: Sizes, options: PlanningOptions) -> Iterator[Setting]:
    """Return the settings of the network."""
    strides = [list(stride) for stride in sizes.topology.strides]
    reason = "Each axis is halved while 8 voxels or more are left, axes of coarse voxels later."
    yield Setting("train.model.strides", strides, reason)
    if any(1 in kernel for kernel in sizes.topology.kernels):
        reason = "1 along axes of voxels twice as coarse as the finest or more: neighbours there are far apart."
        yield Setting("train.model.kernel_size", [list(kernel) for kernel in sizes.topology.kernels], reason)
    widths = channels_of(sizes.topology)
    if not options.use_gpu:
        widths = tuple(width * CPU_CHANNELS // widths[0] for width in widths)
    yield Setting("train.model.channels", list(widths), "Doubled with each stage, up to a limit.")
    if options.network.preset:
        blocks = list(options.network.num_blocks(len(widths)))
        yield Setting("train.model.num_blocks", blocks, "Blocks of each stage of the encoder.")
    heads = max(0, min(2, len(widths) - 2))
    yield Setting("train.model.deep_supervision", heads, "Coarser predictions that also enter the loss.")


def plan_batch(sizes: Sizes, options: PlanningOptions) -> Iterator[Setting]:
    """Return the number of samples per step."""
    if not options.use_gpu:
        reason = "Without a GPU: small, for more steps in the same time."
        yield Setting("train.global_batch_size", _cpu_batch(sizes), reason)
        return
    share = f"{100 * options.network.largest_share:g} % of all voxels"
    reason = share if sizes.is_limited_by_data else f"{options.memory_gb:g} GB"
    yield Setting("train.global_batch_size", sizes.batch_size, f"Limited by {reason}.")


def _cpu_batch(sizes: Sizes) -> int:
    """Return the batch without a GPU; of slices as many as have the voxels of a small patch."""
    patch = sizes.topology.patch_size
    slices = CPU_SLICE_VOXELS // math.prod(patch) if 1 in patch else 0
    return min(max(CPU_BATCH, slices), sizes.batch_size)
