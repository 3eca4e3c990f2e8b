"""Random numbers addressed by (seed, step, slot), so that no state has to be saved to resume."""

from __future__ import annotations

import numpy as np
import torch

AUGMENT, NOISE = 2, 3
"""What a stream is for: the first number of its address. 0 and 1 are the order of samples and their patches."""


def generator(seed: int, *address: int) -> np.random.Generator:
    """An independent NumPy generator for this address: the same numbers whoever asks, whenever."""
    return np.random.Generator(np.random.Philox(np.random.SeedSequence((seed, *address))))


def torch_generator(device: torch.device, seed: int, *address: int) -> torch.Generator:
    """The same for numbers drawn on ``device``; equal on equal kinds of device, not across kinds."""
    state = np.random.SeedSequence((seed, *address)).generate_state(1, np.uint64)
    return torch.Generator(device=device).manual_seed(int(state[0] >> 1))
