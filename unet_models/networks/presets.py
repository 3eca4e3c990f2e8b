"""Specs of published denoisers. (Those of segmentation networks: ``unet_models/specs/presets.py``.)"""

from __future__ import annotations

from unet_models.specs.denoisers import DenoisingUNetSpec


def stable_diffusion_1x() -> DenoisingUNetSpec:
    """Build the spec of Stable Diffusion 1.x (Rombach 2022): 859,520,964 parameters in 686 tensors."""
    return DenoisingUNetSpec(
        channels=(320, 640, 1280, 1280),
        attention_levels=(True, True, True, False),
        num_res_blocks=2,
        num_heads=8,
        context_dim=768,
    )
