"""Decoder of the fully convolutional network: scores of several resolutions, upsampled and added (Long 2015).

Which resolutions take part is the spec's ``skip``: with strides of 2 and five stages below full resolution, FCN-32s has
none, FCN-16s the one of stride 16, FCN-8s those of 16 and 8. From the finest of them, or from the coarsest stage, one
step leads to full resolution.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from unet_models.networks.layers import CONV, INTERPOLATION
from unet_models.networks.parts import Parts
from unet_models.specs.networks import Strides, UNetSpec


class Decoder(nn.Module):
    """1x1 convolutions to scores of each resolution that takes part; scores are upsampled by linear interpolation.

    The paper's transposed convolutions begin as this interpolation, and its last one stays so.
    """

    def __init__(self, spec: UNetSpec, ndim: int, strides: Strides, num_classes: int, parts: Parts) -> None:
        super().__init__()
        coarsest = len(spec.channels) - 1
        self.levels = [i for i in range(coarsest) if spec.skips[i] == "add"]
        self.heads = nn.ModuleList(CONV[ndim](spec.channels[i], num_classes, 1) for i in [*self.levels, coarsest])
        self.mode = INTERPOLATION[ndim]

    def forward(self, features: list[Tensor]) -> list[Tensor]:
        """Decode features, finest first, to logits of full resolution."""
        *scores, x = self.heads
        x = x(features[-1])
        for level, score in reversed(list(zip(self.levels, scores, strict=True))):
            x = self._upsample(x, features[level]) + score(features[level])
        return [self._upsample(x, features[0])]

    def _upsample(self, x: Tensor, like: Tensor) -> Tensor:
        return F.interpolate(x, size=like.shape[2:], mode=self.mode, align_corners=False)
