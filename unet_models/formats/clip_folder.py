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
from safetensors import SafetensorError
from torch import Tensor

from data_pipelines.atomic import atomic_file
from data_pipelines.errors import WeightsError
from unet_models.networks.tokenizer import load_tokenizer, tokenize

CONFIG, WEIGHTS, PREPROCESSOR = "config.json", "model.safetensors", "preprocessor_config.json"
CLIP_SIDE, CLIP_MEAN, CLIP_STD = 224, (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
"""Input of OpenAI's image encoders (Radford 2021, published code): the default for a folder without a preprocessor."""


class Clip:
    """Frozen networks of a CLIP folder on one device."""

    def __init__(self, folder: Path, device: torch.device | str = "cpu") -> None:
        """Load the folder. Raises WeightsError, naming what is missing, where it is no CLIP."""
        from transformers import CLIPModel, CLIPTextModel

        kind = read_config(folder).get("model_type")
        if kind not in ("clip", "clip_text_model"):
            raise WeightsError(
                f"{folder / CONFIG}: model_type is {kind!r}; give a folder of `clip` or `clip_text_model`"
            )
        if not (folder / WEIGHTS).is_file():
            raise WeightsError(f"{folder}: has no {WEIGHTS}; write it by save_pretrained of transformers (no pickles)")
        self.tokenizer = load_tokenizer(tokenizer_folder(folder))
        self.device = torch.device(device)
        network = _load_frozen(CLIPModel if kind == "clip" else CLIPTextModel, folder, self.device)
        self.towers: Any = network if kind == "clip" else None
        self.text = network.text_model if kind == "clip" else network
        self.preprocessor = _read_preprocessor(folder)

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
    clip.save_pretrained(str(folder))
    tokenizer.save_pretrained(str(folder))
    half = [0.5] * 3
    preprocessor = {"image_mean": half, "image_std": half, "size": {"shortest_edge": resolution}}
    with atomic_file(folder / PREPROCESSOR) as partial:
        partial.write_text(json.dumps(preprocessor, indent=1))


def tokenizer_folder(folder: Path) -> Path:
    """Find the tokenizer of the CLIP in ``folder``. Raises WeightsError where there is none."""
    for candidate in (folder, folder / "tokenizer", folder.parent / "tokenizer"):
        if (candidate / "vocab.json").is_file() or (candidate / "tokenizer.json").is_file():
            return candidate
    raise WeightsError(f"{folder}: no tokenizer (vocab.json and merges.txt, or tokenizer.json) here or in tokenizer/")


def read_config(folder: Path) -> dict[str, Any]:
    """Read the folder's config.json. Raises WeightsError where there is none, or no JSON object in it."""
    try:
        return dict(json.loads((folder / CONFIG).read_text()))
    except (OSError, ValueError, TypeError) as error:
        raise WeightsError(f"{folder / CONFIG}: cannot be read ({error}); name the folder that holds it") from None


def _read_preprocessor(folder: Path) -> Preprocessor:
    path = folder / PREPROCESSOR
    found = json.loads(path.read_text()) if path.is_file() else {}
    size = found.get("size", read_config(folder).get("vision_config", {}).get("image_size", CLIP_SIDE))
    side = size.get("shortest_edge", size.get("height", CLIP_SIDE)) if isinstance(size, dict) else size
    values = (found.get("image_mean", CLIP_MEAN), found.get("image_std", CLIP_STD))
    mean, std = (torch.tensor(v, dtype=torch.float32).view(3, 1, 1) for v in values)
    return Preprocessor(int(side or CLIP_SIDE), mean, std)


def _load_frozen(network: Any, folder: Path, device: torch.device) -> Any:
    """Load a class of transformers from ``folder``, in evaluation mode and without gradients."""
    try:
        loaded = network.from_pretrained(str(folder), local_files_only=True)
    except (OSError, SafetensorError) as error:
        raise WeightsError(f"{folder / WEIGHTS}: cannot be read ({error}); copy the folder again") from error
    return loaded.to(device).eval().requires_grad_(False)
