"""U-ViT: a vision transformer with the long skip connections of a U-Net (Bao 2023).

Timestep, class and text states are tokens beside those of the latents' patches, and all attend to all. Unlike the
paper, positions are fixed sines and cosines of a patch's place, so that latents may have any size; the timestep passes
through two layers; and the output starts at zero, as that of every denoiser.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from unet_models.networks.attention import Attention, TransformerBlock
from unet_models.networks.denoiser import Denoiser, TextAttention, run_block
from unet_models.networks.denoiser_blocks import TimeEmbedding, zero_weights
from unet_models.networks.patches import PatchEmbedding, join_patches
from unet_models.specs.denoisers import UViTSpec


class UViT(Denoiser):
    """Transformer over the tokens of timestep, class, text and patches; block i is joined with block n - 1 - i."""

    spec: UViTSpec

    def __init__(self, spec: UViTSpec) -> None:
        super().__init__(spec)
        width, pairs = spec.width, spec.num_layers // 2
        self.patches = PatchEmbedding(spec.in_channels, width, spec.patch_size)
        self.time_embedding = TimeEmbedding(width, width)
        if spec.num_class_embeds is not None:
            self.class_embedding = nn.Embedding(spec.num_class_embeds, width)
        if spec.context_dim is not None:
            self.context_proj = nn.Linear(spec.context_dim, width)
        self.in_blocks = nn.ModuleList(_block(spec) for _ in range(pairs))
        self.mid_block = _block(spec)
        self.skip_projs = nn.ModuleList(nn.Linear(2 * width, width) for _ in range(pairs))
        self.out_blocks = nn.ModuleList(_block(spec) for _ in range(pairs))
        self.norm_out = nn.LayerNorm(width)
        self.proj_out = nn.Linear(width, spec.patch_size**2 * spec.out_channels)
        self.conv_out = nn.Conv2d(spec.out_channels, spec.out_channels, 3, padding=1)
        self.apply(_initialise)
        zero_weights(self.conv_out)

    def predict(
        self, noisy_latents: Tensor, timesteps: Tensor, context: Tensor | None, class_labels: Tensor | None
    ) -> Tensor:
        """Predict from checked inputs, see ``Denoiser.forward``."""
        patches = self.patches(noisy_latents)  # (B, N, D)
        conditions = self._condition_tokens(timesteps, context, class_labels)  # (B, M, D)
        x = self.transform(torch.cat([conditions, patches], dim=1))
        values = self.proj_out(x[:, conditions.shape[1] :])
        return self.conv_out(join_patches(values, self.spec.patch_size, *noisy_latents.shape[2:]))

    def transform(self, x: Tensor) -> Tensor:
        """Apply all blocks and the last normalisation to tokens (B, M + N, D)."""
        recompute = self.spec.gradient_checkpointing
        skips = []
        for block in self.in_blocks:
            x = run_block(block, x, recompute=recompute)
            skips.append(x)
        x = run_block(self.mid_block, x, recompute=recompute)
        for project, block in zip(self.skip_projs, self.out_blocks, strict=True):
            x = run_block(block, project(torch.cat([x, skips.pop()], dim=-1)), recompute=recompute)
        return self.norm_out(x)

    @property
    def exported_sides(self) -> tuple[int, int]:
        """Return the smallest side of latents that an exported graph takes, and the number that divides its sides."""
        return 2 * self.spec.patch_size, self.spec.patch_size

    def text_attention(self, num_tokens: int) -> TextAttention:
        """Return all layers: text is part of the sequence, after timestep and class."""
        first = 1 if self.spec.num_class_embeds is None else 2
        layers = [module for module in self.modules() if isinstance(module, Attention)]
        return TextAttention(layers, slice(first + num_tokens, None), slice(first, first + num_tokens))

    def _condition_tokens(self, timesteps: Tensor, context: Tensor | None, class_labels: Tensor | None) -> Tensor:
        tokens = [self.time_embedding(timesteps)[:, None]]
        if class_labels is not None:
            tokens.append(self.class_embedding(class_labels)[:, None])
        if context is not None:
            tokens.append(self.context_proj(context))
        return torch.cat(tokens, dim=1)


def _block(spec: UViTSpec) -> TransformerBlock:
    return TransformerBlock(spec.width, spec.num_heads, activation="gelu")


def _initialise(module: nn.Module) -> None:
    """Initialise layers as the paper does: truncated normals of standard deviation 0.02, biases 0."""
    if isinstance(module, (nn.Linear, nn.Embedding)):
        nn.init.trunc_normal_(module.weight, std=0.02)
    if isinstance(module, nn.Linear) and module.bias is not None:
        nn.init.zeros_(module.bias)
