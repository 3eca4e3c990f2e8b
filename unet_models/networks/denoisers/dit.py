"""DiT: a vision transformer whose layers are modulated by timestep and class (adaLN-zero, Peebles 2023, figure 3).

Text states enter by cross-attention in every block (the second variant of the paper's figure), and not pooled into
the modulation: one vector per prompt cannot say which word belongs where, and attention maps show which does.
"""

from __future__ import annotations

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from unet_models.networks.attention import Attention, FeedForward
from unet_models.networks.denoiser import Denoiser, run_block
from unet_models.networks.denoiser_blocks import TimeEmbedding, zero_weights
from unet_models.networks.patches import PatchEmbedding, join_patches
from unet_models.specs.denoisers import DiTSpec

NUM_SINUSOIDS = 256
"""Sinusoids of a timestep, as published."""


class DiT(Denoiser):
    """Transformer over the tokens of patches; blocks start as the identity, and the output at zero."""

    spec: DiTSpec

    def __init__(self, spec: DiTSpec) -> None:
        super().__init__(spec)
        width = spec.width
        self.patches = PatchEmbedding(spec.in_channels, width, spec.patch_size)
        self.time_embedding = TimeEmbedding(NUM_SINUSOIDS, width)
        if spec.num_class_embeds is not None:
            self.class_embedding = nn.Embedding(spec.num_class_embeds, width)
        self.blocks = nn.ModuleList(
            ModulatedBlock(width, spec.num_heads, spec.context_dim) for _ in range(spec.num_layers)
        )
        self.modulation_out = nn.Linear(width, 2 * width)
        self.proj_out = nn.Linear(width, spec.patch_size**2 * spec.out_channels)
        self.apply(_initialise)
        for layer in (self.modulation_out, self.proj_out):
            zero_weights(layer)

    def predict(
        self, noisy_latents: Tensor, timesteps: Tensor, context: Tensor | None, class_labels: Tensor | None
    ) -> Tensor:
        """Predict from checked inputs, see ``Denoiser.forward``."""
        x = self.patches(noisy_latents)  # (B, N, D)
        condition = self.time_embedding(timesteps)
        if class_labels is not None:
            condition = condition + self.class_embedding(class_labels)
        condition = F.silu(condition)  # once for all blocks
        for block in self.blocks:
            x = run_block(block, x, condition, context, recompute=self.spec.gradient_checkpointing)
        shift, scale = self.modulation_out(condition)[:, None].chunk(2, dim=-1)
        values = self.proj_out(modulate(x, shift, scale))
        return join_patches(values, self.spec.patch_size, *noisy_latents.shape[2:])

    @property
    def exported_sides(self) -> tuple[int, int]:
        """Return the smallest side of latents that an exported graph takes, and the number that divides its sides."""
        return 2 * self.spec.patch_size, self.spec.patch_size


class ModulatedBlock(nn.Module):
    """Self-attention and feed-forward, each shifted, scaled and gated by the condition, and cross-attention between."""

    def __init__(self, width: int, num_heads: int, context_dim: int | None) -> None:
        super().__init__()
        self.modulation = nn.Linear(width, 6 * width)
        self.attn1 = Attention(width, num_heads, bias=True)
        self.attn2 = None if context_dim is None else Attention(width, num_heads, context_dim, bias=True)
        self.ff = FeedForward(width, "gelu_tanh")

    def start_as_identity(self) -> None:
        """Set what is added to the tokens to zero (adaLN-zero)."""
        zero_weights(self.modulation)
        if self.attn2 is not None:
            zero_weights(self.attn2.to_out[0])

    def forward(
        self,
        x: Float[Tensor, "batch tokens width"],
        condition: Float[Tensor, "batch width"],
        context: Float[Tensor, "batch others source"] | None,
    ) -> Float[Tensor, "batch tokens width"]:
        """Apply the block; ``condition`` is activated."""
        shift1, scale1, gate1, shift2, scale2, gate2 = self.modulation(condition)[:, None].chunk(6, dim=-1)
        x = x + gate1 * self.attn1(modulate(x, shift1, scale1))
        if self.attn2 is not None:
            x = x + self.attn2(_normalise(x), context)
        return x + gate2 * self.ff(modulate(x, shift2, scale2))


def modulate(
    x: Float[Tensor, "batch tokens width"],
    shift: Float[Tensor, "batch 1 width"],
    scale: Float[Tensor, "batch 1 width"],
) -> Float[Tensor, "batch tokens width"]:
    """Normalise tokens, then scale and shift them (adaptive layer normalisation, Perez 2018)."""
    return _normalise(x) * (1 + scale) + shift


def _normalise(x: Tensor) -> Tensor:
    """Apply layer normalisation without weights of its own."""
    return F.layer_norm(x, x.shape[-1:], eps=1e-6)


def _initialise(module: nn.Module) -> None:
    """Initialise linear layers as Glorot 2010 does, biases 0; embeddings of standard deviation 0.02.

    The published code has 0.02 for the layers of the timestep, too, and Glorot's for the patches, which are PyTorch's
    here.
    """
    if isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    if isinstance(module, nn.Embedding):
        nn.init.normal_(module.weight, std=0.02)
    if isinstance(module, ModulatedBlock):
        module.start_as_identity()
