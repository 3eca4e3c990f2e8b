"""A CLIP as a folder, written here or anywhere else: text states, and unit vectors of texts and images.

config.json, model.safetensors      both towers (``CLIPModel``), or the text tower alone (``CLIPTextModel``)
tokenizer files                     in the same folder, or in ``tokenizer/`` beside or below it
preprocessor_config.json            side, mean and deviation of the image tower's input
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from unet_models.networks.tokenizer import load_tokenizer, tokenize

CONFIG, WEIGHTS, PREPROCESSOR = "config.json", "model.safetensors", "preprocessor_config.json"
CLIP_MEAN, CLIP_DEVIATION = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
"""Of OpenAI's image towers (Radford 2021, published code): what a folder without a preprocessor means."""


class Clip:
    """The networks of a folder, frozen, on one device."""

    def __init__(self, folder: Path, device: torch.device | str = "cpu") -> None:
        """Raises ValueError where the folder holds something else, naming what it lacks."""
        from transformers import CLIPModel, CLIPTextModel

        kind = read_config(folder).get("model_type")
        if kind not in ("clip", "clip_text_model"):
            raise ValueError(f"{folder / CONFIG}: model_type is {kind!r}; give a folder of `clip` or `clip_text_model`")
        if not (folder / WEIGHTS).is_file():
            raise ValueError(f"{folder}: has no {WEIGHTS}; write it by save_pretrained of transformers (no pickles)")
        self.tokenizer = load_tokenizer(tokenizer_folder(folder))
        self.device = torch.device(device)
        self.towers: Any = None
        if kind == "clip":
            self.towers = _frozen(CLIPModel.from_pretrained(str(folder), local_files_only=True), self.device)
            self.text: Any = self.towers.text_model
        else:
            text = CLIPTextModel.from_pretrained(str(folder), local_files_only=True)
            self.text = _frozen(text, self.device)
        self.preprocessor = _read_preprocessor(folder)

    @property
    def has_images(self) -> bool:
        """Whether there is an image tower."""
        return self.towers is not None

    @property
    def context_dim(self) -> int:
        """Width of the text states."""
        return int(self.text.config.hidden_size)

    @torch.no_grad()
    def text_states(self, captions: Sequence[str]) -> Float[Tensor, "batch tokens width"]:
        """The last hidden states after the final norm: what the U-Net's cross-attention reads."""
        return self.text(input_ids=tokenize(self.tokenizer, captions).to(self.device)).last_hidden_state

    @torch.no_grad()
    def text_vectors(self, captions: Sequence[str]) -> Float[Tensor, "batch vector"]:
        """Unit vectors."""
        tokens = tokenize(self.tokenizer, captions).to(self.device)
        pooled = self.text(input_ids=tokens).pooler_output
        return F.normalize(self.towers.text_projection(pooled).float(), dim=-1)

    @torch.no_grad()
    def image_vectors(self, images: Int[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch vector"]:
        """Unit vectors of uint8 RGB images, resized (antialiased) to what the tower reads."""
        side, mean, deviation = self.preprocessor
        pixels = images.to(self.device).float() / 255
        if pixels.shape[-2:] != (side, side):
            pixels = F.interpolate(pixels, (side, side), mode="bicubic", antialias=True).clamp(0, 1)
        pixels = (pixels - mean.to(self.device)) / deviation.to(self.device)
        pooled = self.towers.vision_model(pixel_values=pixels).pooler_output
        return F.normalize(self.towers.visual_projection(pooled).float(), dim=-1)


def save_clip(folder: Path, clip: Any, tokenizer: Any, resolution: int) -> None:
    """Write a ``CLIPModel`` that reads square images of ``resolution`` pixels in -1..1, with its tokenizer."""
    folder.mkdir(parents=True, exist_ok=True)
    clip.save_pretrained(str(folder))
    tokenizer.save_pretrained(str(folder))
    half = [0.5] * 3
    described = {"image_mean": half, "image_std": half, "size": {"shortest_edge": resolution}}
    (folder / PREPROCESSOR).write_text(json.dumps(described, indent=1))


def tokenizer_folder(folder: Path) -> Path:
    """Where the tokenizer of the CLIP in ``folder`` lies. Raises ValueError where it is nowhere."""
    places = [folder, folder / "tokenizer", folder.parent / "tokenizer"]
    for place in places:
        if (place / "vocab.json").is_file() or (place / "tokenizer.json").is_file():
            return place
    raise ValueError(f"{folder}: no tokenizer (vocab.json and merges.txt, or tokenizer.json) here or in tokenizer/")


def read_config(folder: Path) -> dict[str, Any]:
    """The folder's config.json. Raises ValueError where there is none."""
    try:
        return dict(json.loads((folder / CONFIG).read_text()))
    except (OSError, ValueError) as error:
        raise ValueError(f"{folder / CONFIG}: cannot be read ({error}); name the folder that holds it") from None


def _read_preprocessor(folder: Path) -> tuple[int, Tensor, Tensor]:
    """Side in pixels; mean and deviation, (3, 1, 1)."""
    path = folder / PREPROCESSOR
    found = json.loads(path.read_text()) if path.is_file() else {}
    size = found.get("size", read_config(folder).get("vision_config", {}).get("image_size", 224))
    side = size.get("shortest_edge", size.get("height", 224)) if isinstance(size, dict) else size
    values = (found.get("image_mean", CLIP_MEAN), found.get("image_std", CLIP_DEVIATION))
    mean, deviation = (torch.tensor(v, dtype=torch.float32).view(3, 1, 1) for v in values)
    return int(side or 224), mean, deviation


def _frozen(model: Any, device: torch.device) -> Any:
    return model.to(device).eval().requires_grad_(False)
