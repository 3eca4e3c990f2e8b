"""Work of an evaluation's actors and what comes back of it; both travel as JSON, arrays and pictures in base64."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable
from typing import Literal

import numpy as np
from pydantic import Field

from data_pipelines.shards.writer import npy_bytes
from data_pipelines.specs import Spec
from flows.pipelines.diffusion.evaluation.neighbours import Nearest, Neighbours
from flows.pipelines.diffusion.model import Ingredients
from flows.report.pictures import png_bytes
from unet_models.specs.diffusion import ImageRequest

PART_IMAGES = 256
"""Images of one part, at most, but for searches: as many as are decoded at a time."""


class DrawingJob(Spec):
    """Settings that all parts of one evaluation share; every actor reads them once."""

    ingredients: Ingredients
    """Parts of the trained model, whose CLIP also measures."""
    model_uri: str
    """Folder of a finished model to draw with instead; empty: draw with the trained one."""
    queries_uri: str
    """Features of the images whose neighbours are searched; empty where none are."""
    index_uri: str
    images_uri: str
    resolution: int
    """Side of the square in which real and generated images are compared, in pixels."""
    samples_uri: str
    """Folder for the generated images."""
    inception_weights: str
    threads: int
    use_gpu: bool


class Part(Spec):
    """One piece of work for an actor."""

    name: str
    """Set of images that it belongs to."""
    kind: Literal["draw", "prior", "real", "trace", "search", "explain"]
    requests: tuple[ImageRequest, ...] = ()
    rows: tuple[int, ...] = ()
    """Index rows of real images."""
    given: tuple[int, ...] = ()
    """Index rows of the images that the requests draw from, one each; empty: they draw from none."""
    untrained: bool = False
    """Draw with random weights."""
    shard: str = ""
    """Name under which the images are kept; empty: they are not kept."""
    shows: bool = False
    """Return the images."""
    measures: bool = True
    """Compute their features."""
    restores: bool = False
    """Also reconstruct real images through the autoencoder."""
    checks: bool = False
    """Compare images with their captions pixel by pixel."""

    @property
    def num_images(self) -> int:
        """Number of images, for progress."""
        return len(self.requests) or len(self.rows)


class MapRow(Spec):
    """Attention maps of one prompt, side by side."""

    name: str
    """``mean``, or the step or head that they are of."""
    tokens: tuple[str, ...]
    pngs: tuple[str, ...]
    """PNG files in base64, one per token."""


class Result(Spec):
    """Result of a part."""

    features: dict[str, str] = Field(default={})
    """Extractor to the ``.npy`` file of (N, D) float32, in base64."""
    alignment: list[float] = Field(default=[])
    """Cosine of each image's vector with its prompt's."""
    right: list[list[bool]] = Field(default=[])
    """For each image and each item of its caption: whether the image shows it."""
    related: list[bool] = Field(default=[])
    """For each image: whether its items lie to one another as the caption says."""
    pngs: list[str] = Field(default=[])
    """PNG files in base64."""
    given: str = ""
    """PNG file in base64 of the image that the first of the images was drawn from; empty where it was from none."""
    maps: tuple[MapRow, ...] = ()
    """Attention to the tokens of a prompt."""
    restored: dict[str, str] = Field(default={})
    """Features of reconstructed images."""
    nearest: dict[str, str] = Field(default={})
    """``SET/EXTRACTOR/distances`` and ``SET/EXTRACTOR/rows`` of the nearest training images, encoded as features."""
    squared_error: float = 0.0
    """Mean squared error of the reconstructions, of values in -1..1."""


def decode_neighbours(result: dict[str, str]) -> Neighbours:
    """Decode the neighbours of a result."""
    arrays = decode_features(result)
    names = dict.fromkeys(name.rsplit("/", 1)[0] for name in arrays)
    return {name: Nearest(arrays[f"{name}/distances"], arrays[f"{name}/rows"]) for name in names}


def encode_neighbours(neighbours: Neighbours) -> dict[str, str]:
    """Encode neighbours; ``decode_neighbours`` is the inverse."""
    arrays = {f"{name}/distances": nearest.distances for name, nearest in neighbours.items()}
    return encode_features(arrays | {f"{name}/rows": nearest.rows for name, nearest in neighbours.items()})


def decode_features(result: dict[str, str]) -> dict[str, np.ndarray]:
    """Decode the features of a result: extractor to (N, D) float32."""
    return {name: np.load(io.BytesIO(base64.b64decode(text)), allow_pickle=False) for name, text in result.items()}


def encode_pngs(images: Iterable[np.ndarray]) -> list[str]:
    """Encode images as PNG files in base64."""
    return [encode_bytes(png_bytes(image)) for image in images]


def encode_bytes(data: bytes) -> str:
    return base64.b64encode(data).decode()


def encode_features(features: dict[str, np.ndarray]) -> dict[str, str]:
    """Encode features; ``decode_features`` is the inverse."""
    return {name: base64.b64encode(npy_bytes(values)).decode() for name, values in features.items()}
