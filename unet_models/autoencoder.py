"""The image autoencoder: diffusers' ``AutoencoderKL``, as a module that training and encoding share."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from unet_models.diffusion_specs import AutoencoderSpec
from unet_models.noise import sample_posterior


def build_autoencoder(spec: AutoencoderSpec, resolution: int) -> Any:
    """A fresh ``diffusers.AutoencoderKL`` for square RGB images of ``resolution`` pixels."""
    from diffusers import AutoencoderKL

    levels = len(spec.channels)
    return AutoencoderKL(
        block_out_channels=spec.channels,
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        layers_per_block=spec.num_res_blocks,
        latent_channels=spec.latent_channels,
        norm_num_groups=min(32, spec.channels[0] // 2),
        sample_size=resolution,
        mid_block_add_attention=False,
    )


def load_autoencoder(folder: Path, device: torch.device | str = "cpu") -> Any:
    """The ``diffusers.AutoencoderKL`` of a folder, frozen. Raises ValueError where the folder holds something else."""
    from diffusers import AutoencoderKL

    path = folder / "config.json"
    try:
        name = json.loads(path.read_text()).get("_class_name")
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: cannot be read ({error}); name the folder of an AutoencoderKL") from None
    if name != "AutoencoderKL":
        raise ValueError(f"{path}: _class_name is {name!r}; give the folder of an AutoencoderKL")
    autoencoder = AutoencoderKL.from_pretrained(str(folder), local_files_only=True, use_safetensors=True)
    return autoencoder.to(device).eval().requires_grad_(False)


class TrainableAutoencoder(nn.Module):
    """Encode, draw from the posterior, decode: one forward pass, as data-parallel training needs it."""

    def __init__(self, autoencoder: Any) -> None:
        super().__init__()
        self.autoencoder = autoencoder

    def forward(
        self, images: Float[Tensor, "batch 3 height width"], noise: Float[Tensor, "batch channels h w"]
    ) -> tuple[Float[Tensor, "batch 3 height width"], Float[Tensor, "batch two_channels h w"]]:
        """Images in -1..1 and standard normals of the latent's shape -> reconstructions and posterior moments."""
        moments = self.autoencoder.encode(images).latent_dist.parameters
        return self.autoencoder.decode(sample_posterior(moments.float(), noise)).sample, moments
