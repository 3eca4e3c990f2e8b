"""CLIP as a folder of transformers, written here or anywhere else: text states, and vectors of texts and images.

config.json, model.safetensors      both encoders (``CLIPModel``), or the text encoder alone (``CLIPTextModel``)
tokenizer files                     in the same folder, or in ``tokenizer/`` beside or below it
preprocessor_config.json            size, mean and standard deviation of the image encoder's input
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from safetensors.torch import save_file
from torch import Tensor

from data_pipelines.atomic import atomic_file
from data_pipelines.errors import WeightsError
from unet_models.formats.clip_config import (
    CONFIG,
    TEXT_ALONE,
    has_images,
    load_clip_tokenizer,
    read_clip_config,
)
from unet_models.networks.pretrained import load_pretrained, quiet_libraries
from unet_models.networks.tokenizer import tokenize

WEIGHTS, PREPROCESSOR = "model.safetensors", "preprocessor_config.json"
TEXT_PREFIX = "text_model."
"""Begins the names of a text encoder's weights, as folders on the Hub have them."""
CLIP_SIDE, CLIP_MEAN, CLIP_STD = 224, (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
"""Input of OpenAI's image encoders (Radford 2021, published code): the default for a folder without a preprocessor."""


class Clip:
    """Frozen networks of a CLIP folder on one device."""

    def __init__(self, folder: Path, device: torch.device | str = "cpu") -> None:
        """Load the folder, every weight in float32. Raises WeightsError, naming what is wrong, where it is no CLIP."""
        from transformers import CLIPModel, CLIPTextModel

        config = read_clip_config(folder)
        whole = has_images(config)
        network = load_pretrained(CLIPModel if whole else CLIPTextModel, folder, WEIGHTS)
        self.tokenizer = load_clip_tokenizer(folder, config)
        self.device = torch.device(device)
        network.to(self.device)
        self.towers: Any = network if whole else None
        self.text = network.text_model if whole else network
        self.preprocessor = _read_preprocessor(folder, config.vision_config.image_size if whole else CLIP_SIDE)

    @property
    def has_images(self) -> bool:
        """True where the folder holds the image encoder, too."""
        return self.towers is not None

    @property
    def context_dim(self) -> int:
        """Width of the text states."""
        return int(self.text.config.hidden_size)

    @torch.no_grad()
    def text_states(self, captions: Sequence[str]) -> Float[Tensor, "batch tokens width"]:
        """Compute the last hidden states after the final norm: the input of the U-Net's cross-attention."""
        return self.text(input_ids=tokenize(self.tokenizer, captions).to(self.device)).last_hidden_state

    @torch.no_grad()
    def text_vectors(self, captions: Sequence[str]) -> Float[Tensor, "batch vector"]:
        """Encode captions as unit vectors. Needs a folder of both encoders."""
        tokens = tokenize(self.tokenizer, captions).to(self.device)
        pooled = self.text(input_ids=tokens).pooler_output
        return F.normalize(self.towers.text_projection(pooled).float(), dim=-1)

    @torch.no_grad()
    def image_vectors(self, images: UInt8[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch vector"]:
        """Encode RGB images as unit vectors, resized (bicubic, antialiased). Needs a folder of both encoders."""
        pixels = self.preprocessor.apply(images.to(self.device))
        pooled = self.towers.vision_model(pixel_values=pixels).pooler_output
        return F.normalize(self.towers.visual_projection(pooled).float(), dim=-1)


@dataclass(frozen=True, slots=True)
class Preprocessor:
    """Resizing and normalisation of an image encoder's input."""

    side: int
    """Height and width in pixels."""
    mean: Float[Tensor, "3 1 1"]
    """Mean of each channel, of values 0..1."""
    std: Float[Tensor, "3 1 1"]
    """Standard deviation of each channel, of values 0..1."""

    def apply(self, images: UInt8[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch 3 side side"]:
        """Resize and normalise images."""
        pixels = images.float() / 255
        if pixels.shape[-2:] != (self.side, self.side):
            pixels = F.interpolate(pixels, (self.side, self.side), mode="bicubic", antialias=True).clamp(0, 1)
        return (pixels - self.mean.to(pixels.device)) / self.std.to(pixels.device)


def save_clip(folder: Path, clip: Any, tokenizer: Any, resolution: int) -> None:
    """Write a ``transformers.CLIPModel`` and its tokenizer to ``folder``.

    The image encoder reads square images of ``resolution`` pixels in -1..1.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with quiet_libraries():
        clip.save_pretrained(str(folder))
    save_tokenizer(folder, tokenizer)
    half = [0.5] * 3
    preprocessor = {"image_mean": half, "image_std": half, "size": {"shortest_edge": resolution}}
    with atomic_file(folder / PREPROCESSOR) as partial:
        partial.write_text(json.dumps(preprocessor, indent=1))


def save_text_encoder(folder: Path, text: Any) -> None:
    """Write the text encoder of a ``Clip`` to ``folder`` as every version of transformers reads it.

    From version 5 on, transformers itself drops ``TEXT_PREFIX`` from the names; earlier versions take the weights of
    such a folder for missing and go on with random ones.
    """
    folder.mkdir(parents=True, exist_ok=True)
    # Copies: safetensors refuses tensors that share memory.
    tensors = {f"{TEXT_PREFIX}{name}": value.cpu().clone() for name, value in text.state_dict().items()}
    config = text.config.to_dict() | {"architectures": ["CLIPTextModel"], "model_type": TEXT_ALONE}
    with atomic_file(folder / CONFIG) as description, atomic_file(folder / WEIGHTS) as weights:
        save_file(tensors, weights, metadata={"format": "pt"})
        description.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")


def save_tokenizer(folder: Path, tokenizer: Any) -> None:
    """Write a tokenizer to ``folder`` with the files of every version of transformers.

    Versions before 5 need vocabulary and merges in files of their own.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save_pretrained(str(folder))
    model = json.loads(tokenizer.backend_tokenizer.to_str())["model"]
    merges = [pair if isinstance(pair, str) else " ".join(pair) for pair in model["merges"]]
    with atomic_file(folder / "vocab.json") as vocabulary, atomic_file(folder / "merges.txt") as lines:
        vocabulary.write_text(json.dumps(model["vocab"], ensure_ascii=False), encoding="utf-8")
        lines.write_text("\n".join(["#version: 0.2", *merges]) + "\n", encoding="utf-8")


def _read_preprocessor(folder: Path, side: int) -> Preprocessor:
    """Read mean and standard deviation of the image encoder's input; its side is the network's, whatever the file says.

    Raises WeightsError where the file cannot be used.
    """
    path = folder / PREPROCESSOR
    try:
        found = json.loads(path.read_text()) if path.is_file() else {}
        values = (found.get("image_mean", CLIP_MEAN), found.get("image_std", CLIP_STD))
        mean, std = (torch.tensor(v, dtype=torch.float32).view(3, 1, 1) for v in values)
    except (ValueError, TypeError, RuntimeError, AttributeError) as error:
        raise WeightsError(f"{path}: cannot be used ({error}); copy the folder again") from None
    return Preprocessor(side, mean, std)
