"""Skip connections: what a decoder stage makes of the encoder's features of its resolution.

concat        features of encoder and decoder side by side (Ronneberger 2015)
add           their sum (LinkNet, Chaurasia 2017)
gated         the encoder's weighted by an attention gate, then concat; gated at the skip's resolution
gated_coarse  the same, gated on the grid of the coarser stage, as published (Attention U-Net, Oktay 2018)
none          the decoder's alone
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from unet_models.networks.layers import CONV, INTERPOLATION, crop_border
from unet_models.specs.networks import Skip


class AttentionGate(nn.Module):
    """Additive attention gate (Oktay 2018, eq. 1-2); ``stride`` leads from the skip's grid to the gate's."""

    def __init__(self, ndim: int, channels: int, gate_channels: int, stride: tuple[int, ...]) -> None:
        super().__init__()
        hidden = max(channels // 2, 1)
        self.project_skip = CONV[ndim](channels, hidden, stride, stride=stride, bias=False)
        self.project_gate = CONV[ndim](gate_channels, hidden, 1)
        self.attention = CONV[ndim](hidden, 1, 1)
        self.mode = INTERPOLATION[ndim] if set(stride) != {1} else None

    def forward(
        self, skip: Float[Tensor, "batch channels *spatial"], gate: Float[Tensor, "batch gate_channels *gate"]
    ) -> Float[Tensor, "batch channels *spatial"]:
        """Weight each voxel of the skip by a number in (0, 1)."""
        return skip * self.weights(skip, gate)

    def weights(
        self, skip: Float[Tensor, "batch channels *spatial"], gate: Float[Tensor, "batch gate_channels *gate"]
    ) -> Float[Tensor, "batch 1 *spatial"]:
        """Compute the weights, at the skip's resolution."""
        weights = torch.sigmoid(self.attention(F.relu(self.project_skip(skip) + self.project_gate(gate))))
        if self.mode is not None:
            weights = F.interpolate(weights, size=skip.shape[2:], mode=self.mode, align_corners=False)
        return weights


class SkipConnection(nn.Module):
    """Joins encoder features with those of the decoder."""

    def __init__(
        self,
        kind: Skip,
        ndim: int,
        channels: int,
        coarse_channels: int,
        stride: tuple[int, ...],
        crop: tuple[int, ...] | None = None,
    ) -> None:
        """Build a connection whose encoder features are cropped by ``crop`` voxels on each side, per axis."""
        super().__init__()
        self.kind, self.crop = kind, crop or (0,) * ndim
        self.out_channels = channels if kind in ("add", "none") else 2 * channels
        self.gate: AttentionGate | None = None
        if kind == "gated":
            self.gate = AttentionGate(ndim, channels, channels, (1,) * ndim)
        elif kind == "gated_coarse":
            self.gate = AttentionGate(ndim, channels, coarse_channels, stride)

    def forward(self, skip: Tensor, x: Tensor, coarse: Tensor) -> Tensor:
        """Join ``skip`` with ``x``, the features ``coarse`` of the stage below after upsampling."""
        if self.kind == "none":
            return x
        skip = crop_border(skip, self.crop)
        if self.kind == "add":
            return skip + x
        if self.gate is not None:
            skip = self.gate(skip, x if self.kind == "gated" else coarse)
        return torch.cat([skip, x], dim=1)
