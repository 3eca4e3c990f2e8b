"""Numbers of parameters in closed form, and as docs/networks.md states them. Networks are 2-D where nothing is said."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from itertools import pairwise

from torch import nn

from tests.support.project import CHECKOUT

Count = Callable[[int, int], int]
"""Parameters of a stage of two blocks, by its input and output channels."""


def num_parameters(model: nn.Module) -> int:
    """Count the parameters of a network."""
    return sum(parameter.numel() for parameter in model.parameters())


# `+ 1` beside the input channels of a convolution is its bias; a normalisation has a scale and a shift per channel.


def plain(i: int, o: int, ndim: int = 2) -> int:
    """Count two convolutions, a normalisation after each."""
    return (3**ndim * i + 1) * o + (3**ndim * o + 1) * o + 2 * 2 * o


def residual(i: int, o: int) -> int:
    """Count what ``plain`` has, and a 1x1 convolution around it."""
    return plain(i, o) + (i + 1) * o


def separable(i: int, o: int) -> int:
    """Count a filter for each channel, a 1x1 convolution and a normalisation, twice.

    Of one channel the first convolution is an ordinary one.
    """
    first = (9 * i + 1) * o if i == 1 else 9 * i + (i + 1) * o
    return first + 9 * o + (o + 1) * o + 2 * 2 * o


def inverted_residual(i: int, o: int, expansion: int = 6) -> int:
    """Count the expanding, the depthwise and the projecting convolution, a normalisation after each, twice."""
    return sum(h * c + 9 * h + h * o + 2 * (2 * h + o) for c in (i, o) for h in [expansion * c])


def shuffle(i: int, o: int, groups: int = 4) -> int:
    """Count grouped, depthwise and grouped convolution with their normalisations, and a projection, twice."""
    h = o // 4
    after = math.gcd(groups, h)
    first, second = (c * h // math.gcd(groups, h, c) for c in (i, o))
    projection = i * o + 2 * o
    return first + second + projection + 2 * (9 * h + h * o // after + 2 * (2 * h + o))


def unet(stage: Count, channels: Sequence[int], in_channels: int, classes: int, joined: int = 2, ndim: int = 2) -> int:
    """Count encoder, transposed convolutions of 2 voxels per axis, decoder and head.

    ``joined`` is how many times the channels of its level a decoder stage is given: 2 of concatenated skips, else 1.
    """
    encoder = sum(stage(i, o) for i, o in pairwise((in_channels, *channels)))
    decoder = sum((2**ndim * coarse + 1) * fine + stage(joined * fine, fine) for fine, coarse in pairwise(channels))
    return encoder + decoder + (channels[0] + 1) * classes


def gates(channels: Sequence[int]) -> int:
    """Count attention gates on the coarser grid: 2x2 projection of the skip, 1x1 of the gate, 1x1 to one channel."""
    halves = [(fine, coarse, fine // 2) for fine, coarse in pairwise(channels)]
    return sum(4 * fine * half + (coarse + 1) * half + half + 1 for fine, coarse, half in halves)


def nested(channels: Sequence[int], in_channels: int, classes: int) -> int:
    """Count the triangle of U-Net++: node ``j`` of a level joins ``j`` nodes with the coarser one, projected by 1x1."""
    encoder = sum(plain(i, o) for i, o in pairwise((in_channels, *channels)))
    nodes = sum(
        (coarse + 1) * fine + plain((number + 1) * fine, fine)
        for level, (fine, coarse) in enumerate(pairwise(channels))
        for number in range(1, len(channels) - level)
    )
    return encoder + nodes + (channels[0] + 1) * classes


def documented(name: str, heading: str = "Segmentation") -> set[int]:
    """Return the numbers of parameters in the rows of docs/networks.md, below a heading, that have ``name`` as code."""
    page = (CHECKOUT / "docs" / "networks.md").read_text()
    _, _, section = page.partition(f"\n## {heading}\n")
    rows = [line for line in section.partition("\n## ")[0].splitlines() if line.startswith("|") and f"`{name}`" in line]
    return {int(number.replace(",", "")) for row in rows for number in re.findall(r"\d{1,3}(?:,\d{3})+", row)}
