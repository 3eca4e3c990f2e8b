"""Degradation of a held-out image: the same in every validation and evaluation, whatever else is held out."""

from __future__ import annotations

import zlib
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from data_pipelines.random_streams import Stream, torch_generator
from unet_models.restoration.task import Images, Inputs, Task


class HeldOut(NamedTuple):
    """A degraded image beside the true one."""

    inputs: Inputs
    """Of one image."""
    image: Float[Tensor, "3 height width"]
    """The true image, cut where the task needs whole blocks of pixels."""
    region: Float[Tensor, "1 height width"] | None
    """1 where pixels are unknown; None: all are restored."""


def degrade_held_out(task: Task, image: Images, key: str, seed: int) -> HeldOut:
    """Degrade one image ``(1, 3, H, W)`` on the CPU as a function of its key and the seed."""
    address = zlib.crc32(key.encode())
    generator = torch_generator(torch.device("cpu"), seed, Stream.HELD_OUT_DEGRADATION, address)
    image = task.crop(image)
    inputs = task.degrade(image, [generator])
    region = task.region(inputs)
    return HeldOut(inputs, image[0], None if region is None else region[0])
