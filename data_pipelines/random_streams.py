"""Random numbers addressed by (seed, stream, step, position), so that no generator state has to be saved to resume.

Every stream of the project has its id here, once. The same address gives the same numbers in every process, at any
time.
"""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch


class Stream(IntEnum):
    """Id of a random stream of training: the first number of an address, after the seed."""

    SAMPLE_ORDER = 0
    PATCH = 1
    AUGMENTATION = 2
    NOISE = 3
    DROPOUT = 4
    BUCKET_ORDER = 5
    FOREGROUND = 6
    CAPTION = 7
    DEGRADATION = 8
    HELD_OUT_DEGRADATION = 9
    CONDITION = 10
    MODALITY = 11
    CALIBRATION = 12


class ImagePurpose(IntEnum):
    """Purpose of an image drawn in evaluation: the first number of its seed's address, after the seed."""

    SAMPLE = 0
    GRID = 1
    GUIDANCE_SWEEP = 2
    TRACE = 3
    HELD_OUT = 4
    SIZES = 5


def numpy_generator(seed: int, stream: Stream, *address: int) -> np.random.Generator:
    """Build the Philox generator of an address."""
    return np.random.Generator(np.random.Philox(np.random.SeedSequence((seed, int(stream), *address))))


def torch_generator(device: torch.device, seed: int, stream: Stream, *address: int) -> torch.Generator:
    """Build torch's generator of an address on ``device``; numbers are equal on equal kinds of device, not across."""
    import torch

    return torch.Generator(device=device).manual_seed(_torch_seed(seed, stream, *address))


def seed_torch(seed: int, stream: Stream, *address: int) -> None:
    """Seed torch's global generators, which dropout draws from."""
    import torch

    torch.manual_seed(_torch_seed(seed, stream, *address))


def image_seed(seed: int, purpose: ImagePurpose, *address: int) -> int:
    """Compute the seed of one drawn image: given to ``predict``, it draws the image again."""
    state = np.random.SeedSequence((seed, int(purpose), *address)).generate_state(1, np.uint32)
    return int(state[0])


def _torch_seed(seed: int, stream: Stream, *address: int) -> int:
    state = np.random.SeedSequence((seed, int(stream), *address)).generate_state(1, np.uint64)
    return int(state[0] >> 1)
