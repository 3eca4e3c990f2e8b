"""Random numbers addressed by (seed, step, slot), so that no state has to be saved to resume."""

from __future__ import annotations

import numpy as np
import torch

AUGMENT, NOISE, DROPOUT = 2, 3, 4
"""What a stream is for: the first number of its address. 0, 1 and 5 are those of data_pipelines:
the order of samples, their patches, the order of buckets."""


def generator(seed: int, *address: int) -> np.random.Generator:
    """An independent NumPy generator for this address: the same numbers whoever asks, whenever."""
    return np.random.Generator(np.random.Philox(np.random.SeedSequence((seed, *address))))


def torch_generator(device: torch.device, seed: int, *address: int) -> torch.Generator:
    """The same for numbers drawn on ``device``; equal on equal kinds of device, not across kinds."""
    return torch.Generator(device=device).manual_seed(_number(seed, *address))


def seed_torch(seed: int, *address: int) -> None:
    """Set torch's own generators, which dropout draws from."""
    torch.manual_seed(_number(seed, *address))


def _number(seed: int, *address: int) -> int:
    state = np.random.SeedSequence((seed, *address)).generate_state(1, np.uint64)
    return int(state[0] >> 1)
