"""Rank and world size of the process group, sums and maxima over ranks; one rank where there is no group."""

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


class MaximumOverRanks:
    """Maximum of one integer over all ranks, exchanged while a step runs: neither the CPU nor a GPU waits for it.

    Every rank calls ``start`` before the step and ``finish`` after it. Integers are at most 2^31 - 1.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._own = 0
        self._exchanged = torch.zeros(1, dtype=torch.int32, device=device)
        self._work: dist.Work | None = None
        if device.type == "cuda":
            self._stream = torch.cuda.Stream(device)
            self._on_host = torch.zeros(1, dtype=torch.int32, pin_memory=True)

    def start(self, value: int) -> None:
        """Begin the exchange with the value of this rank."""
        self._own = value
        if world_size() == 1:
            return
        self._exchanged.fill_(value)
        self._work = dist.all_reduce(self._exchanged, dist.ReduceOp.MAX, async_op=True)
        if self._device.type == "cuda":
            with torch.cuda.stream(self._stream):  # beside the step, whose kernels do not wait for the other ranks
                self._work.wait()
                self._on_host.copy_(self._exchanged, non_blocking=True)

    def finish(self) -> int:
        """Return the maximum of the values that the ranks started with."""
        if self._work is None:
            return self._own
        if self._device.type == "cuda":
            self._stream.synchronize()
            return int(self._on_host)
        self._work.wait()
        return int(self._exchanged)
