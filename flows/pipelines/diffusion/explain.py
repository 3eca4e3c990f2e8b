"""Maps of what an image attends to in its prompt, token by token: over sampling, per step and per head."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8

from data_pipelines.errors import InputError
from data_pipelines.loading.order import evenly_spaced
from flows.pipelines.diffusion.image_condition import read_image
from flows.pipelines.diffusion.requests import read_request
from flows.pipelines.diffusion.text_to_image import TextToImage
from flows.report.heat import draw_heat
from unet_models.networks.text_attention import record_text_attention
from unet_models.networks.tokenizer import tokenize
from unet_models.specs.diffusion import ImageRequest

NUM_STEPS = 4
"""Sampling steps that are drawn, evenly spaced from the first to the last."""


@dataclass(frozen=True, slots=True)
class PromptMaps:
    """An image, and the attention of its pixels to the tokens of its prompt."""

    image: UInt8[np.ndarray, "height width 3"]
    tokens: tuple[str, ...]
    """Tokens of the prompt, without start, end and padding."""
    maps: Float[np.ndarray, "steps heads tokens h w"]
    """At the size of the latents, averaged over layers; what is missing to 1 goes to other tokens."""

    @property
    def means(self) -> Float[np.ndarray, "tokens h w"]:
        """Return the mean over steps and heads."""
        mean: np.ndarray = self.maps.mean(axis=(0, 1))
        return mean

    def draw(self, weights: Float[np.ndarray, "h w"], highest: float, longest_side: int = 400) -> bytes:
        """Draw a map over the image as PNG, brightest at ``highest``."""
        rows, columns = (
            (np.arange(side) + 0.5) * size // side
            for side, size in zip(self.image.shape[:2], weights.shape, strict=True)
        )
        enlarged = weights[np.ix_(rows.astype(np.intp), columns.astype(np.intp))] / max(highest, 1e-12)
        return draw_heat(self.image.transpose(2, 0, 1), enlarged.astype(np.float32), (1.0, 1.0), longest_side)


def explain_prompt(model: TextToImage, request: ImageRequest, image: np.ndarray | None = None) -> PromptMaps:
    """Draw one image, from ``image`` where the model takes one, and record what it attends to.

    Raises InputError where the model takes no text, or the prompt is empty.
    """
    if not model.takes_text:
        raise InputError("the model was trained without text: there is no attention to a prompt")
    ids = tokenize(model.clip.tokenizer, [request.prompt])[0]
    tokens = _tokens(model, request.prompt)
    if not tokens:
        raise InputError("the prompt is empty: there is no token to attend to")
    shape = model.latent_shape(request)
    with record_text_attention(model.denoiser, len(ids), shape[1:]) as recorded:
        latents = model.sample(request, image, lambda step, latents: recorded.finish_step())
    maps = recorded.maps[:, :, 1 : 1 + len(tokens)].float().numpy()
    return PromptMaps(model.decode(latents)[0], tokens, maps)


def _tokens(model: TextToImage, prompt: str) -> tuple[str, ...]:
    """Return the tokens of a prompt that the text encoder reads, between those of start and end."""
    tokenizer = model.clip.tokenizer
    ids = tokenizer([prompt], truncation=True)["input_ids"][0]
    return tuple(token.removesuffix("</w>") for token in tokenizer.convert_ids_to_tokens(ids)[1:-1])


class DiffusionExplainer:
    """Explains the images of one model."""

    def __init__(self, bundle: Path, class_name: str | None = None) -> None:
        """Load the model's folder. Raises InputError for a class: maps are of tokens."""
        if class_name is not None:
            raise InputError(f"--class {class_name}: maps of a diffusion model are of the tokens of a prompt")
        self.model = TextToImage(bundle)

    def __call__(self, row: Mapping[str, Any], folder: Path) -> list[Path]:
        """Write the image of one row, as ``predict`` takes it, and its maps, a folder per token; return the files."""
        image = read_image(row["image"]) if "image" in row else None
        found = explain_prompt(self.model, read_request(row, self.model), image)
        folder.mkdir(parents=True, exist_ok=True)
        written = []
        for name, png in _pictures(found):
            path = folder / f"{name}.png"
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(png)
            written.append(path)
        return written


def rows_of_maps(found: PromptMaps) -> dict[str, np.ndarray]:
    """Return the maps (tokens, h, w) that are shown side by side: the mean, some steps and every head."""
    steps, heads = found.maps.mean(axis=1), found.maps.mean(axis=0)
    rows = {"mean": found.means}
    rows |= {f"step-{step + 1:03d}": steps[step] for step in evenly_spaced(range(len(steps)), NUM_STEPS)}
    return rows | {f"head-{number + 1}": maps for number, maps in enumerate(heads)}


def _pictures(found: PromptMaps) -> Iterator[tuple[str, bytes]]:
    """Yield name and PNG of the image, and of each token's mean, steps and heads, scaled to the token's maximum."""
    yield "image", found.draw(np.zeros(found.maps.shape[-2:], np.float32), 1.0)
    for number, token in enumerate(found.tokens):
        folder = f"{number + 1:02d}-{re.sub('[^A-Za-z0-9]+', '_', token)}"
        for name, maps in rows_of_maps(found).items():
            yield f"{folder}/{name}", found.draw(maps[number], maps[number].max())
