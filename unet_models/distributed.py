"""Rank and world size of the process group, and sums over ranks; one rank where there is no group."""

from __future__ import annotations

import torch
import torch.distributed as dist


def world_size() -> int:
    """Return the number of ranks."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """Return this process's rank."""
    return dist.get_rank() if dist.is_initialized() else 0


def sum_over_ranks(values: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Sum every rank's ``values`` element by element; the result is on the CPU."""
    if world_size() == 1:
        return values
    values = values.to(device)
    dist.all_reduce(values)
    return values.cpu()
