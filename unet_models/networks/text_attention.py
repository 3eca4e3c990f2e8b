"""Maps of what a denoiser's patches attend to in the text, recorded while it samples (Hertz 2022; Tang 2023)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from unet_models.networks.attention import Attention
from unet_models.networks.denoiser import Denoiser, TextAttention


class TextAttentionMaps:
    """Attention of the last sample of each batch, by sampling step, averaged over layers at the size of the latents."""

    def __init__(self, attention: TextAttention, size: tuple[int, int]) -> None:
        self.attention, self.size = attention, size
        self.steps: list[Tensor] = []
        self._sum: Tensor | None = None
        self._count = 0

    def finish_step(self) -> None:
        """End a sampling step: what was recorded since the last call is its average over the layers."""
        assert self._sum is not None
        self.steps.append(self._sum / self._count)
        self._sum, self._count = None, 0

    @property
    def maps(self) -> Float[Tensor, "steps heads tokens height width"]:
        """Return the maps of all steps; at each pixel they sum over the tokens to 1, or less where there are others."""
        return torch.stack(self.steps)

    def record(self, layer: Attention, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        """Add the attention of a layer, as a forward hook of it."""
        weights = layer.weights(*(tensor[-1:] for tensor in inputs))[0]  # (heads, queries, keys)
        of_patches = weights[:, self.attention.patches, self.attention.text].transpose(1, 2)
        grid = of_patches.unflatten(2, grid_of(of_patches.shape[2], *self.size))
        spread = F.interpolate(grid, size=self.size, mode="bilinear").cpu()
        self._sum = spread if self._sum is None else self._sum + spread
        self._count += 1


@contextmanager
def record_text_attention(denoiser: Denoiser, num_tokens: int, size: tuple[int, int]) -> Iterator[TextAttentionMaps]:
    """Record the maps of latents of ``size`` while the context is open; it costs nothing otherwise.

    ``num_tokens`` is the number of text states.
    """
    attention = denoiser.text_attention(num_tokens)
    maps = TextAttentionMaps(attention, size)
    handles = [layer.register_forward_hook(maps.record) for layer in attention.layers]
    try:
        yield maps
    finally:
        for handle in handles:
            handle.remove()


def grid_of(num_patches: int, height: int, width: int) -> tuple[int, int]:
    """Return rows and columns of the patches that latents were cut to, or of the pixels they were reduced to."""
    for side in range(1, max(height, width) + 1):
        rows, columns = -(-height // side), -(-width // side)
        if rows * columns == num_patches:
            return rows, columns
    raise ValueError(f"{num_patches} patches are no grid over {height}x{width} latents")
