"""Plan of an evaluation: the images to generate and the real ones to measure, in parts for the actors.

An image for a held-out caption has the size of that caption's own image. Parts hold whole batches of one size, and
batches do not depend on the number of workers: neither do the images, to the bit.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from data_pipelines.images import shapes
from data_pipelines.images.buckets import Size, bucket_size
from data_pipelines.loading.order import evenly_spaced, group_alike
from data_pipelines.random_streams import ImagePurpose
from flows.pipelines.diffusion.config import DiffusionConfig
from flows.pipelines.diffusion.evaluation.asking import (
    Asked,
    Samples,
    ask,
    build_request,
    can_be_guided,
    captions_can_be_checked,
    given_rows,
    is_text_alone,
)
from flows.pipelines.diffusion.evaluation.parts import PART_IMAGES, Part
from unet_models.specs.diffusion import ImageRequest

T = TypeVar("T")
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


def plan_parts(config: DiffusionConfig, samples: Samples) -> Plan:
    """Plan the main set, the sets it is compared with, and what the report shows beside it."""
    checked = captions_can_be_checked(config)
    asked = ask(config, samples)
    requests = [
        build_request(config, each, ImagePurpose.SAMPLE, number, size=each.size) for number, each in enumerate(asked)
    ]
    size = _part_size(config)
    pieces = group_alike([(request.width, request.height) for request in requests], size)
    parts = [
        Part(
            name="generated",
            kind="draw",
            requests=tuple(requests[i] for i in piece),
            given=given_rows(asked[i] for i in piece),
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
        parts += _checked_parts(config, asked, requests, size)
    trained_on = Counter(
        bucket for bucket, side in zip(samples.buckets, samples.splits, strict=True) if side == "train"
    )
    shown = _shown(config, asked, [bucket for bucket, _ in trained_on.most_common()])
    return Plan([each.prompt for each in asked], [*parts, *shown])


def _checked_parts(
    config: DiffusionConfig, asked: Sequence[Asked], requests: Sequence[ImageRequest], size: int
) -> list[Part]:
    """Plan prompts for held-out combinations, and the main set drawn by an untrained network."""
    spec = config.evaluate
    held_out: list[Part] = []
    if is_text_alone(config):
        unseen = [Asked(prompt) for prompt in shapes.prompts(max(spec.num_images // 2, 1), spec.seed, held_out=True)]
        unseen_requests = [build_request(config, each, ImagePurpose.HELD_OUT, i) for i, each in enumerate(unseen)]
        held_out = [
            Part(name="held_out", kind="draw", requests=piece, measures=False, checks=True)
            for piece in _pieces(unseen_requests, size)
        ]
    return held_out + [
        Part(
            name="untrained",
            kind="draw",
            requests=tuple(requests[i] for i in piece),
            given=given_rows(asked[i] for i in piece),
            untrained=True,
            measures=False,
            checks=True,
        )
        for piece in _pieces(range(len(requests)), size)
    ]


def _shown(config: DiffusionConfig, asked: Sequence[Asked], buckets: Sequence[str]) -> list[Part]:
    """Plan what the report shows, one part a row. ``buckets`` are those trained on, most images first."""
    spec = config.evaluate
    # An image that is drawn from keeps its size: in another aspect ratio its sides would be cut.
    plain = (each if each.row is not None else replace(each, size=None) for each in asked)
    chosen = evenly_spaced(list(dict.fromkeys(plain)), spec.num_shown)
    half = chosen[: max(len(chosen) // 2, 1)]
    parts = [
        _row(config, "grid", each, [(ImagePurpose.GRID, row, column) for column in range(GRID_COLUMNS)])
        for row, each in enumerate(chosen)
    ]
    parts += [
        _row(config, "sweep", each, [(ImagePurpose.GUIDANCE_SWEEP, row, 0)] * len(scales), scales=scales)
        for row, each in enumerate(half)
        if (scales := spec.guidance_sweep) and can_be_guided(config)
    ]
    if config.data.crop == "buckets" and config.train.image_condition.kind == "none":
        sizes = [bucket_size(bucket) for bucket in buckets[: spec.num_shown]]
        parts += [
            _row(config, "sizes", each, [(ImagePurpose.SIZES, row)] * len(sizes), sizes=sizes)
            for row, each in enumerate(half[:NUM_TRACES])
        ]
    parts += [
        _row(config, "attention", each, [(ImagePurpose.TRACE, row)]).model_copy(update={"kind": "explain"})
        for row, each in enumerate(chosen[: spec.num_explained])
    ]
    return parts + [
        _row(config, "trace", each, [(ImagePurpose.TRACE, row)]).model_copy(update={"kind": "trace"})
        for row, each in enumerate(half[:NUM_TRACES])
    ]


def _row(
    config: DiffusionConfig,
    name: str,
    asked: Asked,
    addresses: Sequence[tuple[ImagePurpose, *tuple[int, ...]]],
    scales: Sequence[float | None] = (),
    sizes: Sequence[Size | None] = (),
) -> Part:
    """Plan one row of pictures of the report, an image for each address, of its scale or size where they are given.

    Other images have the size of ``asked``.
    """
    count = len(addresses)
    requests = tuple(
        build_request(config, asked, *address, scale=scale, size=size)
        for address, scale, size in zip(addresses, scales or [None] * count, sizes or [asked.size] * count, strict=True)
    )
    return Part(
        name=name, kind="draw", requests=requests, given=given_rows([asked] * count), shows=True, measures=False
    )


def plan_search(samples: Samples) -> list[Part]:
    """Plan the search of the training images that ``Samples.rows`` leaves out."""
    seen = set(samples.rows("train"))
    rest = [row for row, split in enumerate(samples.splits) if split == "train" and row not in seen]
    return [Part(name="search", kind="search", rows=piece) for piece in _pieces(rest, SEARCH_IMAGES)]


def _part_size(config: DiffusionConfig) -> int:
    """Return the images of a part: whole batches, and work for every worker."""
    batch = config.evaluate.batch_size
    share = -(-config.evaluate.num_images // config.compute.max_workers)
    return max(min(share, PART_IMAGES) // batch, 1) * batch


def _pieces(items: Sequence[T], size: int) -> list[tuple[T, ...]]:
    return [tuple(items[i : i + size]) for i in range(0, len(items), size)]
