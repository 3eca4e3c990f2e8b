"""Prediction of an image in tiles that overlap by the receptive field: what comes out is what the whole gives."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from data_pipelines.errors import ConfigError
from unet_models.precision import Precision, autocast
from unet_models.restoration.restorer import Restorer

MAX_SIDE = 2048
"""Pixels of the largest image that a network's reach is looked for in."""


class Tile(NamedTuple):
    """Rows or columns of one tile."""

    start: int
    end: int
    read_start: int
    read_end: int
    """What the network reads: the tile and its surroundings, where the image has them."""


@torch.inference_mode()
def restore_in_tiles(
    restorer: Restorer, inputs: Float[Tensor, "channels h w"], tile: int | None, precision: Precision = "fp32"
) -> Float[Tensor, "3 height width"]:
    """Restore an image of any size in tiles of ``tile`` input pixels; None: at once.

    Tiles begin at multiples of the network's total stride and are read with ``find_reach`` more pixels on each side,
    so that each pixel sees what it sees in the whole image; only the image's own border is padded. The network alone
    runs in ``precision``: what it adds to is not rounded.
    """

    def restore(part: Float[Tensor, "channels h w"]) -> Float[Tensor, "3 height width"]:
        with autocast(precision, part.device):
            output = restorer.predict(part[None])
        return restorer.restore(output, part[None])[0]

    height, width = inputs.shape[1:]
    if tile is None or max(height, width) <= tile:
        return restore(inputs)
    if restorer.reach is None:
        restorer.reach = find_reach(restorer)
    reach, factor = restorer.reach, restorer.task.factor
    result = inputs.new_empty(3, factor * height, factor * width)
    down, right = restorer.network.divisor
    for rows in _cut(height, tile, reach, down):
        for columns in _cut(width, tile, reach, right):
            part = restore(inputs[:, rows.read_start : rows.read_end, columns.read_start : columns.read_end])
            inner = part[:, _inside(rows, factor), _inside(columns, factor)]
            top, left = factor * rows.start, factor * columns.start
            result[:, top : top + inner.shape[1], left : left + inner.shape[2]] = inner
    return result


@torch.inference_mode()
def find_reach(restorer: Restorer) -> int:
    """Measure how many input pixels beyond a block of the total stride the network reads, on either side.

    A block of NaN in the input makes NaN of every output that depends on it. Raises ConfigError where the whole image
    does, as with normalisation over the image.
    """
    divisor = math.lcm(*restorer.network.divisor)
    side = 16 * divisor
    limit = max(MAX_SIDE, side)
    while side <= limit:
        start = side // 2 // divisor * divisor
        inputs = next(restorer.parameters()).new_zeros(1, restorer.task.in_channels, side, side)
        inputs[..., start : start + divisor, start : start + divisor] = torch.nan
        touched = restorer.predict(inputs)[0].isnan().any(dim=0)
        places = torch.cat([touched.any(dim=0).nonzero(), touched.any(dim=1).nonzero()]).flatten()
        low, high = int(places.min()), int(places.max())
        if low > 0 and high < side - 1:
            # The head of some tasks reads two pixels more: bicubic enlargement.
            return max(start - low, high + 1 - start - divisor) + 2
        side *= 2
    raise ConfigError(
        f"evaluate.tile: the network sees more than {limit // 2} pixels to each side, and tiles would overlap by as "
        "much; set evaluate.tile to null"
    )


def _cut(length: int, tile: int, reach: int, divisor: int) -> Iterator[Tile]:
    """Cut an axis into tiles that begin at multiples of ``divisor``."""
    step = max(tile // divisor, 1) * divisor
    margin = -(-reach // divisor) * divisor
    for start in range(0, length, step):
        end = min(start + step, length)
        yield Tile(start, end, max(start - margin, 0), min(end + margin, length))


def _inside(tile: Tile, factor: int) -> slice:
    """Return the part of what was read that is the tile, in pixels of the restored image."""
    return slice(factor * (tile.start - tile.read_start), factor * (tile.end - tile.read_start))
