"""Super-resolution: the network adds what bicubic enlargement lacks (VDSR, Kim 2016; ESPCN, Shi 2016)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from unet_models.restoration.resampling import enlarge, shrink
from unet_models.restoration.task import Images, Inputs, Task
from unet_models.specs.restoration import SuperResolutionSpec


class SuperResolution(Task):
    """Antialiased bicubic shrinking, rounded to 8 bits as files are."""

    def __init__(self, spec: SuperResolutionSpec) -> None:
        self.scale = spec.factor
        self.shuffles = spec.upsample == "pixel_shuffle"
        self.factor = self.scale if self.shuffles else 1
        self.out_channels = 3 * self.scale**2 if self.shuffles else 3

    def crop(self, images: Images) -> Images:
        """Cut the last rows and columns off that make no whole pixel of the small image."""
        return images[..., : images.shape[2] // self.scale * self.scale, : images.shape[3] // self.scale * self.scale]

    def degrade(self, images: Images, generators: Sequence[torch.Generator]) -> Inputs:
        """Shrink and round; nothing is drawn."""
        small = (shrink(images, self.scale).clamp(0, 1) * 255).round() / 255
        return self.prepare(small)

    def prepare(self, images: Images, holes: Tensor | None = None) -> Inputs:
        """Take small images as they are, or enlarge them for a network that works at full size."""
        return images if self.shuffles else enlarge(images, self.scale)

    def restore(self, output: Tensor, inputs: Inputs) -> Images:
        """Add the network's output to the bicubic enlargement."""
        return self.baseline(inputs) + (F.pixel_shuffle(output, self.scale) if self.shuffles else output)

    def baseline(self, inputs: Inputs) -> Images:
        """Enlarge by bicubic interpolation."""
        return enlarge(inputs, self.scale) if self.shuffles else inputs
