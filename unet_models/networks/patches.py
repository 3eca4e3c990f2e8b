"""Patches of latents as tokens and back, with the positions of a grid of any size (Dosovitskiy 2021)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from unet_models.networks.denoiser_blocks import sinusoids


class PatchEmbedding(nn.Module):
    """Cut latents into squares, project each to a token, and add the position of the square.

    Sides that are not a multiple of the patch are padded with zeros at the end; ``join_patches`` cuts the padding off.
    """

    def __init__(self, in_channels: int, width: int, patch_size: int) -> None:
        super().__init__()
        self.patch_size = patch_size
        self.proj = nn.Conv2d(in_channels, width, patch_size, stride=patch_size)

    def forward(self, latents: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch patches embed"]:
        bottom, right = (-side % self.patch_size for side in latents.shape[2:])
        if bottom or right:
            latents = F.pad(latents, (0, right, 0, bottom))
        grid = self.proj(latents)  # (B, D, rows, columns)
        positions = grid_positions(grid.shape[2], grid.shape[3], grid.shape[1], grid.device)
        return grid.flatten(2).transpose(1, 2) + positions.to(grid.dtype)


def join_patches(
    tokens: Float[Tensor, "batch patches values"], patch_size: int, height: int, width: int
) -> Float[Tensor, "batch channels height width"]:
    """Join patches, ``patch_size**2 * channels`` values each, to latents of ``height`` times ``width`` pixels."""
    rows, columns = -(-height // patch_size), -(-width // patch_size)
    grid = tokens.unflatten(2, (patch_size, patch_size, -1)).unflatten(1, (rows, columns))
    joined = grid.permute(0, 5, 1, 3, 2, 4).flatten(4, 5).flatten(2, 3)  # (B, C, rows * patch, columns * patch)
    return joined[:, :, :height, :width]


def grid_positions(rows: int, columns: int, dim: int, device: torch.device) -> Float[Tensor, "patches dim"]:
    """Compute the position of each cell of a grid, row by row: sines and cosines of its column, then of its row.

    ``dim`` must be a multiple of 4. The fixed encoding of DiT (Peebles 2023) and MAE (He 2022); cells keep their
    encoding in a larger grid.
    """
    half = dim // 2
    # Sines first, as published.
    x, y = (sinusoids(torch.arange(n, device=device), half).roll(half // 2, dims=-1) for n in (columns, rows))
    return torch.cat([x.expand(rows, -1, -1), y[:, None].expand(-1, columns, -1)], dim=-1).flatten(0, 1)
