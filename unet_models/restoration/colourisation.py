"""Colourisation: a and b of CIELAB from L, as numbers or as a distribution over quantised colours (Zhang 2016)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from unet_models.restoration.colour import colour_grid, lab_to_rgb, rgb_to_lab
from unet_models.restoration.losses import image_loss
from unet_models.restoration.task import Images, Inputs, Task
from unet_models.specs.restoration import ColourisationSpec, RestorationLossSpec

AB_SCALE = 110.0
"""Value of a and b that an output of 1 stands for."""
MAX_AB = 110
"""Largest whole number of a and b in sRGB, and smallest."""
NUM_NEIGHBOURS, NEIGHBOUR_SIGMA = 5, 5.0
"""Quantised colours that share a true colour, and the width of their Gaussian weights (Zhang 2016, sec. 2.1)."""


class Colourisation(Task):
    """Inputs are L, scaled to 0..1; the output is a and b."""

    in_channels = 1
    out_channels = 2

    def degrade(self, images: Images, generators: Sequence[torch.Generator]) -> Inputs:
        """Take the colours away; nothing is drawn."""
        return self.prepare(images)

    def prepare(self, images: Images, holes: Tensor | None = None) -> Inputs:
        """Take the lightness of colour or grey images."""
        return rgb_to_lab(images)[:, :1] / 100

    def restore(self, output: Tensor, inputs: Inputs) -> Images:
        """Join the colours with the lightness; what sRGB lacks is clipped."""
        return lab_to_rgb(torch.cat([inputs * 100, self.colours(output)], dim=1))

    def baseline(self, inputs: Inputs) -> Images:
        """Return the grey image."""
        return lab_to_rgb(F.pad(inputs * 100, (0, 0, 0, 0, 0, 2)))

    def colours(self, output: Tensor) -> Float[Tensor, "batch 2 height width"]:
        """Return a and b of the network's output."""
        return output * AB_SCALE

    def loss(
        self, output: Tensor, inputs: Inputs, images: Images, spec: RestorationLossSpec
    ) -> Float[Tensor, " batch"]:
        """Compare a and b, so that a colour outside sRGB has a gradient, too."""
        return image_loss(output, rgb_to_lab(images)[:, 1:] / AB_SCALE, spec)


class ColourClasses(Colourisation):
    """The output is one logit for each quantised colour."""

    def __init__(self, spec: ColourisationSpec, weights: Sequence[float] = ()) -> None:
        """``weights`` is the weight of each quantised colour in the loss; empty: 1."""
        self.temperature = spec.temperature
        self.grid = colour_grid()  # computed here, not in a graph that is traced
        self.weights = torch.tensor(weights) if weights else torch.ones(len(self.grid))
        self.out_channels = len(self.grid)

    def colours(self, output: Tensor) -> Float[Tensor, "batch 2 height width"]:
        """Take the annealed mean of the quantised colours (Zhang 2016, eq. 5)."""
        return torch.einsum("bqhw,qc->bchw", F.softmax(output / self.temperature, dim=1), self.grid.to(output))

    def loss(
        self, output: Tensor, inputs: Inputs, images: Images, spec: RestorationLossSpec
    ) -> Float[Tensor, " batch"]:
        """Compute the rebalanced cross-entropy with the true colours' soft encoding (Zhang 2016, eq. 2)."""
        ab = rgb_to_lab(images)[:, 1:]
        pixels = ab.movedim(1, -1).flatten(0, 2)
        shape = (len(images), *ab.shape[2:], NUM_NEIGHBOURS)
        places, shares = (each.reshape(shape).movedim(-1, 1) for each in soft_encode(pixels))
        # The shares sum to 1: no table of all log-probabilities is needed.
        entropy = output.logsumexp(dim=1) - (output.gather(1, places) * shares).sum(dim=1)
        weighted = entropy * self.weights.to(output)[places[:, 0]]
        return spec.terms.get("cross_entropy", 0.0) * weighted.flatten(1).mean(dim=1)


def soft_encode(ab: Float[Tensor, "pixels 2"]) -> tuple[Int[Tensor, "pixels 5"], Float[Tensor, "pixels 5"]]:
    """Return the quantised colours nearest to each colour, nearest first, and their shares.

    Colours are rounded to whole numbers and looked up: a search would take longer than the network.
    """
    places, shares = _encoding_table(ab.device)
    a, b = (ab.round().clamp(-MAX_AB, MAX_AB).long() + MAX_AB).unbind(dim=1)
    row = a * (2 * MAX_AB + 1) + b  # CUDA has no product of matrices of integers
    return places[row], shares[row]


def count_colours(images: Images) -> Float[Tensor, " colours"]:
    """Count the pixels of each quantised colour."""
    ab = rgb_to_lab(images)[:, 1:].movedim(1, -1).flatten(0, 2)
    return torch.bincount(soft_encode(ab)[0][:, 0], minlength=len(colour_grid())).double()


@cache
def _encoding_table(device: torch.device) -> tuple[Int[Tensor, "table 5"], Float[Tensor, "table 5"]]:
    """Encode every pair of whole numbers a and b, a first."""
    values = torch.arange(-MAX_AB, MAX_AB + 1, dtype=torch.float32)
    distances = torch.cdist(torch.cartesian_prod(values, values), colour_grid())
    nearest, places = distances.topk(NUM_NEIGHBOURS, dim=1, largest=False)
    shares = F.softmax(-0.5 * (nearest / NEIGHBOUR_SIGMA) ** 2, dim=1)
    return places.to(device), shares.to(device)


def rebalancing_weights(counts: Float[Tensor, " colours"], uniform: float) -> list[float]:
    """Compute each colour's weight in the loss (Zhang 2016, eq. 4), of mean 1 over the pixels that were counted."""
    frequencies = counts / counts.sum()
    weights = 1 / ((1 - uniform) * frequencies + uniform / len(counts))
    return (weights / (weights * frequencies).sum()).tolist()
