"""Rank and world size of the process group, and sums over ranks; one rank where there is no group."""

from __future__ import annotations

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor


def world_size() -> int:
    """Return the number of ranks."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """Return the rank of this process."""
    return dist.get_rank() if dist.is_initialized() else 0


def sum_over_ranks(values: Float[Tensor, "*shape"], device: torch.device) -> Float[Tensor, "*shape"]:
    """Sum every rank's ``values`` element by element on ``device``; the result is on the CPU.

    Every rank must call it. The argument is left as it is.
    """
    if world_size() == 1:
        return values.cpu()
    total = values.to(device, copy=True)
    dist.all_reduce(total)
    return total.cpu()
