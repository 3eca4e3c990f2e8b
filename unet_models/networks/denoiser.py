"""Base of the denoisers of latent diffusion: one call signature, whatever the backbone."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NamedTuple

from jaxtyping import Float, Int, Real
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from unet_models.networks.attention import Attention
from unet_models.specs.denoisers import DenoiserSpec


class TextAttention(NamedTuple):
    """Attention of patches to text."""

    layers: list[Attention]
    patches: slice
    """Place of the patches among the queries."""
    text: slice
    """Place of the text states among the keys."""


class Denoiser(nn.Module, ABC):
    """Predict noise, velocity or clean latents from noisy latents, their timesteps and conditions.

    A backbone implements ``predict``. Its output starts at zero.
    """

    def __init__(self, spec: DenoiserSpec) -> None:
        super().__init__()
        self.spec = spec

    def forward(
        self,
        noisy_latents: Float[Tensor, "batch channels height width"],
        timesteps: Real[Tensor, " batch"],
        encoder_hidden_states: Float[Tensor, "batch tokens context"] | None = None,
        class_labels: Int[Tensor, " batch"] | None = None,
    ) -> Float[Tensor, "batch out_channels height width"]:
        """Predict each latent's target at its timestep, an integer or a fraction in the schedule's steps.

        Raises ValueError where ``encoder_hidden_states`` or ``class_labels`` is missing though the spec asks for it,
        or given though it does not, and where a width is not the spec's.
        """
        self._check(noisy_latents, encoder_hidden_states, class_labels)
        return self.predict(noisy_latents, timesteps, encoder_hidden_states, class_labels)

    @abstractmethod
    def predict(
        self, noisy_latents: Tensor, timesteps: Tensor, context: Tensor | None, class_labels: Tensor | None
    ) -> Tensor:
        """Predict from checked inputs, see ``forward``."""

    @property
    @abstractmethod
    def exported_sides(self) -> tuple[int, int]:
        """Return the smallest side of latents that an exported graph takes, and the number that divides its sides."""

    def text_attention(self, num_tokens: int) -> TextAttention:
        """Return the layers in which patches attend to ``num_tokens`` text states, and where both lie in a sequence."""
        layers = [module for module in self.modules() if isinstance(module, Attention) and module.is_cross]
        return TextAttention(layers, slice(None), slice(None))

    def _check(self, noisy_latents: Tensor, context: Tensor | None, class_labels: Tensor | None) -> None:
        spec = self.spec
        if noisy_latents.shape[1] != spec.in_channels:
            raise ValueError(f"in_channels: the spec has {spec.in_channels}, got latents of {noisy_latents.shape[1]}")
        width = None if context is None else context.shape[-1]
        if width != spec.context_dim:
            needed = "no" if spec.context_dim is None else f"(batch, tokens, {spec.context_dim})"
            got = "none" if context is None else tuple(context.shape)
            raise ValueError(
                f"context_dim: the spec has {spec.context_dim}, hence {needed} encoder_hidden_states, got {got}"
            )
        if (class_labels is None) != (spec.num_class_embeds is None):
            needed = "no" if spec.num_class_embeds is None else "(batch,)"
            got = "none" if class_labels is None else tuple(class_labels.shape)
            raise ValueError(
                f"num_class_embeds: the spec has {spec.num_class_embeds}, hence {needed} class_labels, got {got}"
            )


def run_block(block: nn.Module, *inputs: Tensor | None, recompute: bool) -> Tensor:
    """Call ``block``; where ``recompute``, its activations are computed again in the backward pass, not kept."""
    if recompute and block.training:
        found: Tensor = checkpoint(block, *inputs, use_reentrant=False)
        return found
    output: Tensor = block(*inputs)
    return output
