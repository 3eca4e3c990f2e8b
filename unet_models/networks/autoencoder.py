"""Image autoencoder, diffusers' ``AutoencoderKL``, and the module that trains it together with a discriminator."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from data_pipelines.errors import WeightsError
from unet_models.networks.discriminator import PatchDiscriminator, patch_scores
from unet_models.networks.pretrained import load_pretrained
from unet_models.sampling.noise import sample_posterior
from unet_models.specs.encoders import AutoencoderSpec

CLASS = "AutoencoderKL"
DEFAULT_CHANNELS = (64,)
"""Channels of each level where a configuration names none, as of diffusers."""
WEIGHTS = "diffusion_pytorch_model.safetensors"
PIXELS_AT_ONCE = 1 << 20
"""Pixels that an autoencoder encodes or decodes in one forward pass, such as four images of 512 x 512: its features at
full resolution take far more memory than those of the denoiser, whose batch is another number."""


def build_autoencoder(spec: AutoencoderSpec, resolution: int) -> Any:
    """Build a ``diffusers.AutoencoderKL`` with random weights for square RGB images of ``resolution`` pixels."""
    from diffusers import AutoencoderKL

    levels = len(spec.channels)
    return AutoencoderKL(
        block_out_channels=spec.channels,
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        layers_per_block=spec.num_res_blocks,
        latent_channels=spec.latent_channels,
        norm_num_groups=spec.num_groups,
        sample_size=resolution,
        mid_block_add_attention=False,
    )


def load_autoencoder(folder: Path, device: torch.device | str = "cpu") -> Any:
    """Load the ``diffusers.AutoencoderKL`` of a folder, in evaluation mode and without gradients.

    Every weight is in float32. Raises WeightsError where the folder holds something else, or lacks weights.
    """
    from diffusers import AutoencoderKL

    read_autoencoder_config(folder)
    return load_pretrained(AutoencoderKL, folder, WEIGHTS).to(device)


def read_autoencoder_config(folder: Path) -> dict[str, Any]:
    """Read the folder's config.json. Raises WeightsError where it is not that of an autoencoder of RGB images."""
    path = folder / "config.json"
    try:
        config = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise WeightsError(f"{path}: cannot be read ({error}); name the folder of an {CLASS}") from None
    name = config.get("_class_name") if isinstance(config, dict) else None
    if name != CLASS:
        raise WeightsError(f"{path}: _class_name is {name!r}; give the folder of an {CLASS}")
    channels = config.get("in_channels", 3), config.get("out_channels", 3)
    if channels != (3, 3):
        raise WeightsError(f"{path}: in_channels and out_channels are {channels}; give an {CLASS} of RGB images (3, 3)")
    return dict(config)


def images_at_once(height: int, width: int, most: int) -> int:
    """Return how many images of this size an autoencoder takes in one forward pass, ``most`` at most."""
    return max(1, min(most, PIXELS_AT_ONCE // (height * width)))


def downsampling_factor(config: Mapping[str, Any]) -> int:
    """Return the pixels of an image per latent pixel, along a side; ``config`` is that of an ``AutoencoderKL``."""
    factor: int = 2 ** (len(config.get("block_out_channels", DEFAULT_CHANNELS)) - 1)
    return factor


class TrainableAutoencoder(nn.Module):
    """Encoder, posterior sampling, decoder and discriminator in one forward pass, as needed by DDP."""

    def __init__(self, autoencoder: Any, discriminator: nn.Module | None = None) -> None:
        super().__init__()
        self.autoencoder = autoencoder
        self.discriminator = discriminator

    @classmethod
    def from_spec(cls, spec: AutoencoderSpec, resolution: int) -> TrainableAutoencoder:
        """Build both networks with random weights; a discriminator only where its loss term has a weight."""
        discriminator = PatchDiscriminator() if spec.adversarial_weight else None
        return cls(build_autoencoder(spec, resolution), discriminator)

    def forward(
        self, images: Float[Tensor, "batch 3 height width"], noise: Float[Tensor, "batch channels h w"]
    ) -> tuple[Tensor, ...]:
        """Reconstruct images in -1..1 from latents sampled with ``noise``, standard normals of the latents' shape.

        Returns reconstructions ``(B, 3, H, W)`` and posterior moments ``(B, 2C, h, w)``, and with a discriminator its
        ``patch_scores``.
        """
        moments = self.autoencoder.encode(images).latent_dist.parameters
        restored = self.autoencoder.decode(sample_posterior(moments.float(), noise)).sample
        if self.discriminator is None:
            return restored, moments
        return restored, moments, *patch_scores(self.discriminator, restored, images)
