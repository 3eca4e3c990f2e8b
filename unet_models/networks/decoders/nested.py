"""Nested decoder: a triangle of stages in which each sees all before it of its resolution (U-Net++, Zhou 2018).

Node (i, j) of level i (0: full resolution) joins the nodes (i, 0) ... (i, j - 1) with node (i + 1, j - 1), upsampled;
nodes (i, 0) are the encoder's features. The outputs are the last node of each level.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from unet_models.networks.blocks import Block, build_stage, build_upsample
from unet_models.networks.layers import CONV
from unet_models.networks.parts import Parts
from unet_models.specs.networks import Strides, UNetSpec


class Node(nn.Module):
    """Upsampling and stage of one node."""

    def __init__(
        self, spec: UNetSpec, block: Block, ndim: int, level: int, number: int, stride: tuple[int, ...]
    ) -> None:
        super().__init__()
        width, coarse = spec.channels[level : level + 2]
        own = spec.at_stage(level)
        self.upsample = build_upsample(own, block, ndim, coarse, width, stride)
        self.stage = build_stage(own, block, ndim, (number + 1) * width, width, spec.decoder_blocks[level])

    def forward(self, before: list[Tensor], coarse: Tensor) -> Tensor:
        """Join the nodes before with the coarser one."""
        joined: Tensor = self.stage(torch.cat([*before, self.upsample(coarse)], dim=1))
        return joined


class Decoder(nn.Module):
    """Triangle of nodes, and a 1x1 convolution per output."""

    def __init__(self, spec: UNetSpec, ndim: int, strides: Strides, num_classes: int, parts: Parts) -> None:
        super().__init__()
        depth, block = len(spec.channels) - 1, parts.decoder_block
        self.columns = nn.ModuleList(
            nn.ModuleList(Node(spec, block, ndim, level, number, strides[level]) for level in range(depth - number + 1))
            for number in range(1, depth + 1)
        )
        heads = range(spec.deep_supervision, -1, -1)
        self.heads = nn.ModuleList(CONV[ndim](spec.channels[i], num_classes, 1) for i in heads)

    def forward(self, features: list[Tensor]) -> list[Tensor]:
        """Decode features, finest first, to logits, finest first."""
        rows = [[feature] for feature in features]
        for column in self.columns:
            assert isinstance(column, nn.ModuleList)
            for level, node in enumerate(column):
                rows[level].append(node(rows[level], rows[level + 1][-1]))
        heads = list(self.heads)[::-1] if self.training else [self.heads[-1]]
        return [head(rows[level][-1]) for level, head in enumerate(heads)]
