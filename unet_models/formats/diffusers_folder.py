"""Denoising U-Net as a folder of diffusers, read and written.

    config.json                               architecture of a UNet2DConditionModel (``diffusers_config``)
    diffusion_pytorch_model.safetensors       weights, under the names they have here

Needs no diffusers: the format is two files.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from data_pipelines.atomic import atomic_file
from data_pipelines.errors import WeightsError
from unet_models.formats.diffusers_config import CONFIG, denoiser_config, denoiser_spec
from unet_models.networks.denoisers.unet import DenoisingUNet
from unet_models.networks.weights_file import read_weights_file

WEIGHTS = "diffusion_pytorch_model.safetensors"


def save_as_diffusers(denoiser: DenoisingUNet, folder: Path, sample_size: int | None = None) -> None:
    """Write ``folder`` so that ``diffusers.UNet2DConditionModel.from_pretrained(folder)`` gives the same network.

    ``sample_size`` is the default side of the latents that pipelines draw, in latent pixels. Weights keep their
    precision.

    Raises ValueError for a spec without a counterpart in diffusers, see ``denoiser_config``.
    """
    config = denoiser_config(denoiser.spec) | {"sample_size": sample_size}
    with atomic_file(folder / CONFIG) as description:
        description.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
    write_weights(denoiser, folder)


def write_weights(network: nn.Module, folder: Path) -> None:
    """Write the file of weights of a folder. Contiguous: channels-last ones in the order everybody expects."""
    tensors = {k: v.contiguous() for k, v in network.state_dict().items()}
    with atomic_file(folder / WEIGHTS) as weights:
        save_file(tensors, weights, metadata={"format": "pt"})


def load_from_diffusers(folder: Path) -> DenoisingUNet:
    """Load the network of a folder written by diffusers: in float32, on the CPU, in evaluation mode.

    Raises WeightsError where a file is missing or unreadable, weights come in shards or as a pickle, a value of the
    config is not implemented here, or names or shapes of weights are not those of the configured network.
    """
    spec = denoiser_spec(_read_config(folder / CONFIG))
    weights = read_weights(folder)
    with torch.device("meta"):  # weights are neither initialised nor held twice
        denoiser = DenoisingUNet(spec)
    check_weights(folder / WEIGHTS, weights, denoiser.state_dict())
    denoiser.to_empty(device="cpu").load_state_dict(weights)
    return denoiser.eval()


def _read_config(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise WeightsError(f"{path}: no such file; give the folder of the network itself (of a pipeline: its unet/)")
    try:
        config = json.loads(path.read_text())
    except ValueError as error:
        raise WeightsError(f"{path}: not JSON: {error}") from None
    if not isinstance(config, dict):
        raise WeightsError(f"{path}: must be a JSON object, got {type(config).__name__}")
    return config


def read_weights(folder: Path) -> dict[str, Tensor]:
    """Read the one file of weights of a folder. Raises WeightsError where it is missing or damaged."""
    path = folder / WEIGHTS
    if not path.is_file():
        found = sorted(p.name for p in folder.glob("diffusion_pytorch_model*"))
        raise WeightsError(
            f"{folder}: needs its weights in one file, {WEIGHTS} (no shards, no .bin, no variant), found "
            f"{found or 'none'}; write it by save_pretrained(folder, max_shard_size='100GB') of diffusers"
        )
    return read_weights_file(path)


def check_weights(path: Path, got: Mapping[str, Tensor], expected: Mapping[str, Tensor], config: str = CONFIG) -> None:
    """Raise WeightsError where names or shapes of weights are not those of the network that ``config`` describes."""
    for problem, names in (("unknown", got.keys() - expected.keys()), ("missing", expected.keys() - got.keys())):
        if names:
            raise WeightsError(f"{path}: {len(names)} {problem} weights for its {config}, such as {sorted(names)[:3]}")
    for name, tensor in expected.items():
        if got[name].shape != tensor.shape:
            raise WeightsError(f"{path}: {name} must be {tuple(tensor.shape)}, got {tuple(got[name].shape)}")
