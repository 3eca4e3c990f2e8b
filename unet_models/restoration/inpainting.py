"""Inpainting: holes of irregular strokes and boxes (after Yu 2019, free-form masks), filled by the network."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from unet_models.restoration.task import Images, Inputs, Task
from unet_models.specs.restoration import InpaintingSpec

STROKE_POINTS = 4
"""Corners of a stroke."""
GREY = 0.5
"""Value of unknown pixels in the network's input."""


class Inpainting(Task):
    """Inputs are RGB with grey holes, and a channel that is 1 in them. Known pixels are kept exactly."""

    in_channels = 4

    def __init__(self, spec: InpaintingSpec) -> None:
        self.spec = spec

    def degrade(self, images: Images, generators: Sequence[torch.Generator]) -> Inputs:
        """Draw holes into images."""
        holes = torch.stack([draw_holes(images.shape[2:], self.spec, generator) for generator in generators])
        return self.prepare(images, holes[:, None].to(images))

    def prepare(self, images: Images, holes: Float[Tensor, "batch 1 height width"] | None = None) -> Inputs:
        """Cut ``holes`` out of images; none: the images have none."""
        holes = torch.zeros_like(images[:, :1]) if holes is None else holes
        return torch.cat([torch.where(holes > 0, GREY, images), holes], dim=1)

    def restore(self, output: Tensor, inputs: Inputs) -> Images:
        """Fill the holes with the network's output, from grey."""
        return torch.where(inputs[:, 3:] > 0, inputs[:, :3] + output, inputs[:, :3])

    def baseline(self, inputs: Inputs) -> Images:
        """Fill the holes with the mean colour of the known pixels; grey where none is known."""
        images, known = inputs[:, :3], 1 - inputs[:, 3:]
        counts = known.sum(dim=(2, 3), keepdim=True)
        mean = (images * known).sum(dim=(2, 3), keepdim=True) / counts.clamp_min(1)
        return torch.where(known > 0, images, torch.where(counts > 0, mean, GREY))

    def region(self, inputs: Inputs) -> Float[Tensor, "batch 1 height width"]:
        """Return the holes."""
        return inputs[:, 3:]


def draw_holes(size: Sequence[int], spec: InpaintingSpec, generator: torch.Generator) -> Float[Tensor, "height width"]:
    """Draw strokes (broken lines of round corners) and boxes: 1 inside, 0 outside, on the CPU."""
    height, width = size
    rows = torch.arange(height)[:, None] + 0.5
    columns = torch.arange(width)[None] + 0.5
    holes = torch.zeros(height, width, dtype=torch.bool)
    sides = torch.tensor([float(height), float(width)])
    for _ in range(_integer(spec.num_strokes, generator)):
        radius = max(_uniform(spec.stroke_width, generator) * min(height, width) / 2, 0.75)  # a pixel at least
        points = torch.rand(STROKE_POINTS, 2, generator=generator) * sides
        holes |= (_distances(rows, columns, points[:-1], points[1:]) <= radius).any(dim=0)
    for _ in range(_integer(spec.num_boxes, generator)):
        shape = [max(_uniform(spec.box_size, generator) * side, 1.0) for side in (height, width)]
        top, left = (torch.rand(2, generator=generator) * (sides - torch.tensor(shape)).clamp_min(0)).tolist()
        holes |= (rows >= top) & (rows < top + shape[0]) & (columns >= left) & (columns < left + shape[1])
    return holes.float()


def _distances(
    rows: Tensor, columns: Tensor, starts: Float[Tensor, "segments 2"], ends: Float[Tensor, "segments 2"]
) -> Float[Tensor, "segments height width"]:
    """Compute the distance of every pixel from each segment between two points (row, column)."""
    directions = ends - starts
    down, right = directions[:, 0, None, None], directions[:, 1, None, None]
    below, beside = rows - starts[:, 0, None, None], columns - starts[:, 1, None, None]
    along = (below * down + beside * right) / (down**2 + right**2).clamp_min(1e-12)
    along = along.clamp(0, 1)
    return torch.hypot(below - along * down, beside - along * right)


def _uniform(bounds: tuple[float, float], generator: torch.Generator) -> float:
    return bounds[0] + (bounds[1] - bounds[0]) * float(torch.rand((), generator=generator))


def _integer(bounds: tuple[int, int], generator: torch.Generator) -> int:
    return int(torch.randint(bounds[0], bounds[1] + 1, (), generator=generator))
