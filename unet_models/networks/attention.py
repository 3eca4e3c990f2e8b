"""Attention and transformer blocks of the denoisers (for the U-Net: Rombach 2022, section 3.3 and appendix E.2.1).

Attributes have the names that diffusers gives them, since they become the names of the tensors in a checkpoint.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

Activation = Literal["geglu", "gelu", "gelu_tanh"]
"""Activation function of a feed-forward network."""


class Attention(nn.Module):
    """Multi-head attention (Vaswani 2017, eq. 1): self-attention, or cross-attention with ``context_dim``."""

    def __init__(self, width: int, num_heads: int, context_dim: int | None = None, *, bias: bool = False) -> None:
        """``bias`` adds a bias to queries, keys and values."""
        super().__init__()
        self.num_heads, self.is_cross = num_heads, context_dim is not None
        source = width if context_dim is None else context_dim
        self.to_q = nn.Linear(width, width, bias=bias)
        self.to_k = nn.Linear(source, width, bias=bias)
        self.to_v = nn.Linear(source, width, bias=bias)
        self.to_out = nn.Sequential(nn.Linear(width, width))

    def forward(
        self, x: Float[Tensor, "batch tokens width"], context: Float[Tensor, "batch others source"] | None = None
    ) -> Float[Tensor, "batch tokens width"]:
        """Attend from each token of ``x`` to the context; without a context, to the other tokens of ``x``."""
        source = x if context is None else context
        query, key, value = (self._split(t) for t in (self.to_q(x), self.to_k(source), self.to_v(source)))
        mixed = attend(query, key, value)  # (B, heads, tokens, width / heads)
        return self.to_out(mixed.transpose(1, 2).flatten(2))

    def weights(
        self, x: Float[Tensor, "batch tokens width"], context: Float[Tensor, "batch others source"] | None = None
    ) -> Float[Tensor, "batch heads tokens others"]:
        """Compute how much each token of ``x`` attends to each other one; ``forward`` never holds these."""
        query, key = self._split(self.to_q(x)), self._split(self.to_k(x if context is None else context))
        scores = query.float() @ key.float().transpose(-1, -2)
        return torch.softmax(scores / query.shape[-1] ** 0.5, dim=-1)

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)


MAX_FLOAT32_TOKENS = 512
"""Sequence length up to which attention is faster in float32 than in bfloat16 on a CPU."""


def attend(
    query: Float[Tensor, "batch heads tokens head"],
    key: Float[Tensor, "batch heads others head"],
    value: Float[Tensor, "batch heads others head"],
) -> Float[Tensor, "batch heads tokens head"]:
    """Compute scaled dot-product attention (Vaswani 2017, eq. 1).

    On a CPU the backward kernel for bfloat16 is several times slower than that for float32 where sequences are short:
    there attention alone is computed in float32, whatever autocast says.
    """
    if query.device.type == "cpu" and query.dtype == torch.bfloat16 and query.shape[-2] <= MAX_FLOAT32_TOKENS:
        with torch.autocast("cpu", enabled=False):
            return F.scaled_dot_product_attention(query.float(), key.float(), value.float()).to(query.dtype)
    return F.scaled_dot_product_attention(query, key, value)


class GEGLU(nn.Module):
    """Gated linear unit: one half of a projection times the GELU of the other (Shazeer 2020, eq. 6)."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.proj = nn.Linear(width, 2 * hidden)

    def forward(self, x: Float[Tensor, "*batch width"]) -> Float[Tensor, "*batch hidden"]:
        value, gate = self.proj(x).chunk(2, dim=-1)
        return value * F.gelu(gate)


class GELU(nn.Module):
    """Projection and GELU (Hendrycks 2016), exact or by the tanh that approximates it."""

    def __init__(self, width: int, hidden: int, approximate: Literal["none", "tanh"]) -> None:
        super().__init__()
        self.proj = nn.Linear(width, hidden)
        self.approximate = approximate

    def forward(self, x: Float[Tensor, "*batch width"]) -> Float[Tensor, "*batch hidden"]:
        return F.gelu(self.proj(x), approximate=self.approximate)


class FeedForward(nn.Module):
    """Position-wise feed-forward network with a hidden layer four times as wide."""

    def __init__(self, width: int, activation: Activation = "geglu") -> None:
        super().__init__()
        hidden = 4 * width
        first: nn.Module = GEGLU(width, hidden)
        if activation != "geglu":
            first = GELU(width, hidden, "tanh" if activation == "gelu_tanh" else "none")
        # The identity takes the place of diffusers' dropout, so that the last layer is number 2 here, too.
        self.net = nn.Sequential(first, nn.Identity(), nn.Linear(hidden, width))

    def forward(self, x: Float[Tensor, "*batch width"]) -> Float[Tensor, "*batch width"]:
        return self.net(x)


class TransformerBlock(nn.Module):
    """Self-attention, cross-attention where there is a context, and feed-forward, each pre-normalised on a shortcut."""

    def __init__(
        self, width: int, num_heads: int, context_dim: int | None = None, activation: Activation = "geglu"
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attn1 = Attention(width, num_heads)
        self.has_cross_attention = context_dim is not None
        if self.has_cross_attention:
            self.norm2 = nn.LayerNorm(width)
            self.attn2 = Attention(width, num_heads, context_dim)
        self.norm3 = nn.LayerNorm(width)
        self.ff = FeedForward(width, activation)

    def forward(
        self, x: Float[Tensor, "batch tokens width"], context: Float[Tensor, "batch others source"] | None = None
    ) -> Float[Tensor, "batch tokens width"]:
        x = x + self.attn1(self.norm1(x))
        if self.has_cross_attention:
            x = x + self.attn2(self.norm2(x), context)
        return x + self.ff(self.norm3(x))


class SpatialTransformer(nn.Module):
    """Transformer blocks over the pixels of a feature map, on a shortcut.

    The input and output projections are 1x1 convolutions, as in Stable Diffusion 1.x; the output projection starts at
    zero, so that the whole starts as the identity (Dhariwal 2021).
    """

    def __init__(
        self, channels: int, num_heads: int, num_blocks: int, context_dim: int | None, num_groups: int
    ) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(num_groups, channels, eps=1e-6)
        self.proj_in = nn.Conv2d(channels, channels, 1)
        self.transformer_blocks = nn.ModuleList(
            TransformerBlock(channels, num_heads, context_dim) for _ in range(num_blocks)
        )
        self.proj_out = nn.Conv2d(channels, channels, 1)
        nn.init.zeros_(self.proj_out.weight)
        nn.init.zeros_(self.proj_out.bias)  # type: ignore[arg-type]

    def forward(
        self,
        x: Float[Tensor, "batch channels height width"],
        context: Float[Tensor, "batch tokens source"] | None,
    ) -> Float[Tensor, "batch channels height width"]:
        # In channels-last memory both changes of layout are views.
        tokens = self.proj_in(self.norm(x)).permute(0, 2, 3, 1).flatten(1, 2)  # (B, H * W, C)
        for block in self.transformer_blocks:
            tokens = block(tokens, context)
        return x + self.proj_out(tokens.unflatten(1, x.shape[2:]).permute(0, 3, 1, 2))
