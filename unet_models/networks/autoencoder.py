"""The image autoencoder: diffusers' ``AutoencoderKL``, and what trains it: a posterior drawn from, a discriminator."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call

from unet_models.specs.encoders import AutoencoderSpec
from unet_models.sampling.noise import sample_posterior


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


class PatchDiscriminator(nn.Sequential):
    """Tells real from reconstructed patches of 34 pixels: (B, 3, H, W) -> (B, 1, H/4 - 2, W/4 - 2), real is positive.

    Isola 2017's, with two strided layers. Group normalisation in place of batch normalisation judges each image by
    itself, however a batch is spread over workers.
    """

    def __init__(self, width: int = 64) -> None:
        super().__init__(
            nn.Conv2d(3, width, 4, stride=2, padding=1),
            nn.LeakyReLU(0.2),
            nn.Conv2d(width, 2 * width, 4, stride=2, padding=1, bias=False),
            nn.GroupNorm(16, 2 * width),
            nn.LeakyReLU(0.2),
            nn.Conv2d(2 * width, 4 * width, 4, padding=1, bias=False),
            nn.GroupNorm(16, 4 * width),
            nn.LeakyReLU(0.2),
            nn.Conv2d(4 * width, 1, 4, padding=1),
        )


class TrainableAutoencoder(nn.Module):
    """Encode, draw from the posterior, decode, judge: one forward pass, as data-parallel training needs it."""

    def __init__(self, autoencoder: Any, discriminator: nn.Module | None = None) -> None:
        super().__init__()
        self.autoencoder = autoencoder
        self.discriminator = discriminator

    @classmethod
    def from_spec(cls, spec: AutoencoderSpec, resolution: int) -> TrainableAutoencoder:
        """Fresh networks; a discriminator where its term has weight."""
        discriminator = PatchDiscriminator() if spec.adversarial_weight else None
        return cls(build_autoencoder(spec, resolution), discriminator)

    def forward(
        self, images: Float[Tensor, "batch 3 height width"], noise: Float[Tensor, "batch channels h w"]
    ) -> tuple[Tensor, ...]:
        """Images in -1..1 and standard normals of the latent's shape -> reconstructions and posterior moments.

        With a discriminator also its judgement of the reconstructions, through which only the autoencoder learns, and
        of the images and of the reconstructions, through which only the discriminator learns: one backward pass and
        one optimizer train both.
        """
        moments = self.autoencoder.encode(images).latent_dist.parameters
        restored = self.autoencoder.decode(sample_posterior(moments.float(), noise)).sample
        if self.discriminator is None:
            return restored, moments
        frozen = {name: parameter.detach() for name, parameter in self.discriminator.named_parameters()}
        fooled = functional_call(self.discriminator, frozen, (restored,))
        return restored, moments, fooled, self.discriminator(images), self.discriminator(restored.detach())
