"""Small denoisers and their inputs."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from unet_models.specs.denoisers import DenoiserSpec, DenoisingUNetSpec, DiTSpec, UViTSpec

SMALL = DenoisingUNetSpec(
    channels=(8, 16), attention_levels=(True, False), num_res_blocks=1, num_heads=2, context_dim=12, num_groups=4
)

TRANSFORMER = {"patch_size": 2, "width": 16, "num_layers": 3, "num_heads": 2, "context_dim": 12}
BACKBONES: dict[str, DenoiserSpec] = {
    "unet": SMALL,
    "uvit": UViTSpec(**TRANSFORMER),
    "dit": DiTSpec(**TRANSFORMER),
}
"""A small denoiser of every backbone, conditioned on text."""


def small(**changes: Any) -> DenoisingUNetSpec:
    """Build the spec of a small denoiser."""
    return DenoisingUNetSpec(**(SMALL.model_dump() | changes))


def perturbed(model: nn.Module) -> Any:
    """Move every weight away from 0 and 1, so that a forgotten one shows."""
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model


def inputs(spec: DenoiserSpec, size: tuple[int, int] = (8, 8), batch: int = 2) -> dict[str, Tensor]:
    """Draw the inputs that ``spec`` asks for, the same each time."""
    generator = torch.Generator().manual_seed(0)
    given = {
        "noisy_latents": torch.randn(batch, spec.in_channels, *size, generator=generator),
        "timesteps": torch.randint(0, 1000, (batch,), generator=generator),
    }
    if spec.context_dim is not None:
        given["encoder_hidden_states"] = torch.randn(batch, 5, spec.context_dim, generator=generator)
    if spec.num_class_embeds is not None:
        given["class_labels"] = torch.randint(0, spec.num_class_embeds, (batch,), generator=generator)
    return given


def shapes(model: nn.Module) -> dict[str, torch.Size]:
    """Shape of every tensor of the state dict, by name."""
    return {name: tensor.shape for name, tensor in model.state_dict().items()}
