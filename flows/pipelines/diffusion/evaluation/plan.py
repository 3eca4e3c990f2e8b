"""Plan of an evaluation: the images to generate and the real ones to measure, in parts for the actors.

An image for a held-out caption has the size of that caption's own image. Parts hold whole batches of one size, and
batches do not depend on the number of workers: neither do the images, to the bit.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from data_pipelines.images import shapes
from data_pipelines.images.buckets import Size, bucket_size
from data_pipelines.loading.order import evenly_spaced, group_alike
from data_pipelines.random_streams import ImagePurpose, image_seed
from flows.pipelines.diffusion.config import DiffusionConfig
from flows.pipelines.diffusion.evaluation.drawing import PART_IMAGES, Part
from unet_models.specs.diffusion import ImageRequest

T = TypeVar("T")
MAX_REAL = 5000
"""Real images that generated ones are compared with, evenly spaced over the training images."""
SEARCH_IMAGES = 4096
"""Training images that one actor searches at a time."""
GRID_COLUMNS = 4
NUM_TRACES = 3
"""Prompts whose way from noise to image is shown."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything to be drawn and measured."""

    prompts: list[str]
    """One for each image of the main set."""
    parts: list[Part]


@dataclass(frozen=True, slots=True)
class Samples:
    """The columns of the index that a plan depends on."""

    captions: Sequence[str]
    splits: Sequence[str]
    buckets: Sequence[str]

    def rows(self, side: str) -> list[int]:
        """Return the rows of the real images of one side that are looked at."""
        return evenly_spaced([row for row, split in enumerate(self.splits) if split == side], MAX_REAL)


def plan_parts(config: DiffusionConfig, samples: Samples) -> Plan:
    """Plan the main set, the sets it is compared with, and what the report shows beside it."""
    checked = captions_can_be_checked(config)
    prompts, sizes = _prompts(config, samples)
    requests = _Requests(config).images(prompts, ImagePurpose.SAMPLE, sizes)
    size = _part_size(config)
    pieces = group_alike([(request.width, request.height) for request in requests], size)
    parts = [
        Part(
            name="generated",
            kind="draw",
            requests=tuple(requests[i] for i in piece),
            shard=f"{number:04d}",
            checks=checked,
        )
        for number, piece in enumerate(pieces)
    ]
    parts += [Part(name="prior", kind="prior", requests=piece) for piece in _pieces(requests, size)]
    for side in ("train", "val"):
        real = _pieces(samples.rows(side), size)
        parts += [Part(name=side, kind="real", rows=piece, restores=side == "val") for piece in real]
    if checked:
        parts += _checked_parts(config, requests, size)
    trained_on = Counter(
        bucket for bucket, side in zip(samples.buckets, samples.splits, strict=True) if side == "train"
    )
    return Plan(prompts, [*parts, *_shown(config, prompts, [bucket for bucket, _ in trained_on.most_common()])])


def captions_can_be_checked(config: DiffusionConfig) -> bool:
    """Tell whether images can be compared with their captions pixel by pixel."""
    return config.data.layout == "shapes"


def _checked_parts(config: DiffusionConfig, requests: Sequence[ImageRequest], size: int) -> list[Part]:
    """Plan prompts for held-out combinations, and the main set drawn by an untrained network."""
    spec = config.evaluate
    unseen = shapes.prompts(max(spec.num_images // 2, 1), spec.seed, held_out=True)
    asked = _Requests(config).images(unseen, ImagePurpose.HELD_OUT, [None] * len(unseen))
    held_out = [
        Part(name="held_out", kind="draw", requests=piece, measures=False, checks=True)
        for piece in _pieces(asked, size)
    ]
    return held_out + [
        Part(name="untrained", kind="draw", requests=piece, untrained=True, measures=False, checks=True)
        for piece in _pieces(requests, size)
    ]


def _shown(config: DiffusionConfig, prompts: Sequence[str], buckets: Sequence[str]) -> list[Part]:
    """Plan what the report shows, one part a row. ``buckets`` are those trained on, most images first."""
    spec, build = config.evaluate, _Requests(config)
    chosen = evenly_spaced(list(dict.fromkeys(prompts)), spec.num_shown)
    half = chosen[: max(len(chosen) // 2, 1)]
    guidance = spec.guidance_scale
    rows: list[tuple[str, list[ImageRequest]]] = [
        ("grid", [build.image(prompt, ImagePurpose.GRID, row, column) for column in range(GRID_COLUMNS)])
        for row, prompt in enumerate(chosen)
    ]
    rows += [
        ("sweep", [build.image(prompt, ImagePurpose.GUIDANCE_SWEEP, row, 0, scale=s) for s in spec.guidance_sweep])
        for row, prompt in enumerate(half)
        if spec.guidance_sweep
    ]
    if config.data.crop == "buckets":
        sizes = [bucket_size(bucket) for bucket in buckets[: spec.num_shown]]
        rows += [
            ("sizes", [build.image(prompt, ImagePurpose.SIZES, row, size=size) for size in sizes])
            for row, prompt in enumerate(half[:NUM_TRACES])
        ]
    parts = [
        Part(name=name, kind="draw", requests=tuple(requests), shows=True, measures=False) for name, requests in rows
    ]
    return parts + [
        Part(name="trace", kind="trace", requests=(build.image(prompt, ImagePurpose.TRACE, row, scale=guidance),))
        for row, prompt in enumerate(half[:NUM_TRACES])
    ]


def plan_search(samples: Samples) -> list[Part]:
    """Plan the search of the training images that ``Samples.rows`` leaves out."""
    seen = set(samples.rows("train"))
    rest = [row for row, split in enumerate(samples.splits) if split == "train" and row not in seen]
    return [Part(name="search", kind="search", rows=piece) for piece in _pieces(rest, SEARCH_IMAGES)]


@dataclass(frozen=True, slots=True)
class _Requests:
    """Builds requests with the seed and guidance scale of an evaluation."""

    config: DiffusionConfig

    def images(self, prompts: Sequence[str], purpose: ImagePurpose, sizes: Sequence[Size | None]) -> list[ImageRequest]:
        """Build one request per prompt; image i is addressed by i."""
        pairs = enumerate(zip(prompts, sizes, strict=True))
        return [self.image(prompt, purpose, i, size=size) for i, (prompt, size) in pairs]

    def image(
        self,
        prompt: str,
        purpose: ImagePurpose,
        *address: int,
        scale: float | None = None,
        size: Size | None = None,
    ) -> ImageRequest:
        """Build a request; ``scale`` and ``size`` default to those of the evaluation and the training."""
        spec = self.config.evaluate
        width, height = size or (None, None)
        return ImageRequest(
            prompt=prompt,
            seed=image_seed(spec.seed, purpose, *address),
            guidance_scale=spec.guidance_scale if scale is None else scale,
            width=width,
            height=height,
        )


def _prompts(config: DiffusionConfig, samples: Samples) -> tuple[list[str], list[Size | None]]:
    """Return prompt and size of each image: held-out captions in turn, or new scenes of generated shapes."""
    count = config.evaluate.num_images
    if captions_can_be_checked(config):
        return shapes.prompts(count, config.evaluate.seed, held_out=False), [None] * count
    held_out = [row for row, side in enumerate(samples.splits) if side == "val"]
    rows = [held_out[i % len(held_out)] for i in range(count)]
    in_buckets = config.data.crop == "buckets"
    sizes = [bucket_size(samples.buckets[row]) if in_buckets else None for row in rows]
    return [samples.captions[row] for row in rows], sizes


def _part_size(config: DiffusionConfig) -> int:
    """Return the images of a part: whole batches, and work for every worker."""
    batch = config.evaluate.batch_size
    share = -(-config.evaluate.num_images // config.compute.max_workers)
    return max(min(share, PART_IMAGES) // batch, 1) * batch


def _pieces(items: Sequence[T], size: int) -> list[tuple[T, ...]]:
    return [tuple(items[i : i + size]) for i in range(0, len(items), size)]
