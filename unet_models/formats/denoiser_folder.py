"""Denoiser of any backbone as a folder, read and written.

A network that diffusers has is a folder of diffusers (``diffusers_folder``). Any other has

    denoiser.json                             its spec
    diffusion_pytorch_model.safetensors       its weights
"""

from __future__ import annotations

from pathlib import Path

import torch
from pydantic import TypeAdapter, ValidationError

from data_pipelines.atomic import atomic_file
from data_pipelines.errors import WeightsError
from unet_models.formats.diffusers_folder import (
    WEIGHTS,
    check_weights,
    load_from_diffusers,
    read_weights,
    save_as_diffusers,
    write_weights,
)
from unet_models.networks.build import build_denoiser
from unet_models.networks.denoiser import Denoiser
from unet_models.networks.denoisers.unet import DenoisingUNet
from unet_models.specs.denoisers import DenoiserSpec

SPEC = "denoiser.json"
_SPECS: TypeAdapter[DenoiserSpec] = TypeAdapter(DenoiserSpec)


def diffusers_obstacle(spec: DenoiserSpec) -> str:
    """Say why diffusers has no such network; empty where it has."""
    if spec.backbone != "unet":
        return f"it has no network with the layers of backbone {spec.backbone}"
    if set(spec.skips) != {"concat"}:
        return f"it has no U-Net with skip connections other than concat ({spec.skip})"
    if spec.context_dim is None:
        return "its U-Nets have no transformer blocks with self-attention alone (train.model.context_dim is null)"
    return ""


def pipeline_obstacle(spec: DenoiserSpec) -> str:
    """Say why ``StableDiffusionPipeline`` of diffusers cannot draw with a network; empty where it can."""
    if obstacle := diffusers_obstacle(spec):
        return obstacle
    if spec.num_class_embeds is not None:
        return "its StableDiffusionPipeline takes no class"
    return "its StableDiffusionPipeline takes no image" if spec.in_channels != spec.out_channels else ""


def save_denoiser(denoiser: Denoiser, folder: Path, sample_size: int | None = None) -> None:
    """Write ``folder``, as one of diffusers where it has such a network (see ``save_as_diffusers``)."""
    if isinstance(denoiser, DenoisingUNet) and not diffusers_obstacle(denoiser.spec):
        save_as_diffusers(denoiser, folder, sample_size)
        return
    with atomic_file(folder / SPEC) as description:
        description.write_text(denoiser.spec.model_dump_json(indent=1))
    write_weights(denoiser, folder)


def load_denoiser(folder: Path) -> Denoiser:
    """Load what ``save_denoiser`` wrote: in float32, on the CPU, in evaluation mode.

    Raises WeightsError where a file is missing or unreadable, or does not describe a network of this project.
    """
    if not (folder / SPEC).is_file():
        return load_from_diffusers(folder)
    try:
        spec = _SPECS.validate_json((folder / SPEC).read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        raise WeightsError(f"{folder / SPEC}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None
    with torch.device("meta"):  # weights are neither initialised nor held twice
        denoiser = build_denoiser(spec)
    weights = read_weights(folder)
    check_weights(folder / WEIGHTS, weights, denoiser.state_dict(), SPEC)
    denoiser.to_empty(device="cpu").load_state_dict(weights)
    return denoiser.eval()
