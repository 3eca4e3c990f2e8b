"""Stage ``evaluate`` of the second pipeline: checkpoint -> generated images, compared with real ones, and a report."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from data_pipelines import storage
from data_pipelines.images import shapes
from data_pipelines.images.buckets import Size, bucket_size
from data_pipelines.digests import file_digests
from data_pipelines.loading.order import batches_alike, evenly_spaced
from data_pipelines.progress import track
from data_pipelines.shards.index import read_table
from flows.cluster.actors import iter_on_actors
from flows.pipelines.diffusion.config import DiffusionConfig
from flows.pipelines.diffusion.evaluation.drawing import Drawer, Job, Part, Result
from flows.pipelines.diffusion.evaluation.measures import measure
from flows.pipelines.diffusion.model import Trained, gather
from flows.stages.shards import shards_uri
from flows.stages.attempt import Attempt
from flows.stages.stage import Stage
from unet_models.specs.diffusion import ImageRequest

MAX_REAL = 5000
"""Real images that generated ones are compared with, evenly spaced over the training images."""
PART_IMAGES = 256
SAMPLE_SEED, GRID_SEED, SWEEP_SEED, TRACE_SEED, HELD_OUT_SEED, SIZES_SEED = range(6)
GRID_COLUMNS = 4


def evaluate_stage(config: DiffusionConfig, trained: Trained) -> Stage:
    """Plan the stage: its key holds the networks', the images' and the settings' identity."""
    identity = config.evaluate.model_dump(mode="json") | {"checked": _is_checked(config)}
    if weights := config.evaluate.inception_weights:
        identity["inception_weights"] = file_digests([Path(weights)])[Path(weights)]

    def compute(attempt: Attempt) -> None:
        _evaluate(config, trained, attempt)

    return Stage("evaluate", identity, trained.records, compute)


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything to be drawn and measured."""

    prompts: list[str]
    """One for each image of the main set."""
    parts: list[Part]


def plan_parts(config: DiffusionConfig, captions: Sequence[str], splits: Sequence[str], buckets: Sequence[str]) -> Plan:
    """What is drawn; ``captions``, ``splits`` and ``buckets`` are the index's columns.

    An image for a held-out caption has the size of that caption's own image. Parts hold whole batches of one size, and
    batches do not depend on the number of workers: neither do the images, to the bit.
    """
    spec, checked = config.evaluate, _is_checked(config)
    prompts, sizes = _prompts(config, captions, splits, buckets)
    requests = _requests(config, prompts, SAMPLE_SEED, sizes)
    size = _part_size(config)
    pieces = batches_alike([(request.width, request.height) for request in requests], size)
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
        real = _pieces(real_rows(splits, side), size)
        parts += [Part(name=side, kind="real", rows=piece, restores=side == "val") for piece in real]
    if checked:
        unseen = shapes.prompts(max(spec.num_images // 2, 1), spec.seed, held_out=True)
        asked = _requests(config, unseen, HELD_OUT_SEED, [None] * len(unseen))
        for name, chosen, untrained in (("held_out", asked, False), ("untrained", requests, True)):
            parts += [
                Part(name=name, kind="draw", requests=piece, untrained=untrained, measures=False, checks=True)
                for piece in _pieces(chosen, size)
            ]
    trained_on = Counter(bucket for bucket, side in zip(buckets, splits, strict=True) if side == "train")
    return Plan(prompts, [*parts, *_shown(config, prompts, [bucket for bucket, _ in trained_on.most_common()])])


def real_rows(splits: Sequence[str], side: str) -> list[int]:
    """Index rows of the real images of one side that are looked at."""
    return evenly_spaced([row for row, split in enumerate(splits) if split == side], MAX_REAL)


def image_seed(seed: int, purpose: int, *address: int) -> int:
    """The seed of one image: what ``predict`` must be given to draw it again."""
    state = np.random.SeedSequence((seed, purpose, *address)).generate_state(1, np.uint32)
    return int(state[0])


def _evaluate(config: DiffusionConfig, trained: Trained, attempt: Attempt) -> None:
    from flows.pipelines.diffusion.evaluation.report import write_report

    shards = trained.shards
    index = read_table(shards.output("index"))
    plan = plan_parts(config, *(index[name].to_pylist() for name in ("caption", "split", "bucket")))
    job = Job(
        ingredients=gather(config, trained),
        index_uri=shards.output("index"),
        images_uri=shards_uri(shards),
        resolution=config.data.resolution,
        samples_uri=attempt.uri("samples"),
        inception_weights=config.evaluate.inception_weights,
        threads=config.compute.threads_per_worker,
        use_gpu=config.compute.use_gpu,
    )
    storage.write_bytes(attempt.uri("job.json"), job.model_dump_json(indent=1).encode())
    results = _run(attempt.uri("job.json"), plan.parts, config)
    measured = measure(plan.parts, results)
    attempt.write("metrics", "metrics.json", json.dumps(measured.metrics, indent=1).encode())
    attempt.figures["metrics"] = measured.metrics
    attempt.figures["num_images"] = len(plan.prompts)
    write_report(attempt, config, trained, list(zip(plan.parts, results, strict=True)), measured)


def _run(job_uri: str, parts: Sequence[Part], config: DiffusionConfig) -> list[Result]:
    """What came of every part, in the order of the parts."""
    items = [{"number": i, "part": part.model_dump_json(), "job": job_uri} for i, part in enumerate(parts)]
    found = {}
    finished = ((row["num_images"], row) for row in iter_on_actors(Drawer, items, config.compute))
    for row in track(finished, "evaluate", "images", sum(part.num_images for part in parts)):
        found[row["number"]] = Result.model_validate_json(row["result"])
    return [found[i] for i in range(len(parts))]


def _shown(config: DiffusionConfig, prompts: Sequence[str], buckets: Sequence[str]) -> list[Part]:
    """What the report shows beside the main set: one part a row. ``buckets`` are those trained on, fullest first."""
    spec = config.evaluate
    chosen = evenly_spaced(list(dict.fromkeys(prompts)), spec.num_shown)

    def part(name: str, row: int, prompt: str, scales: Sequence[float], purpose: int, *, same_noise: bool) -> Part:
        requests = tuple(
            _request(config, prompt, scale, purpose, row, 0 if same_noise else column)
            for column, scale in enumerate(scales)
        )
        return Part(name=name, kind="draw", requests=requests, shows=True, measures=False)

    def sizes(row: int, prompt: str) -> Part:
        wanted = map(bucket_size, buckets[: spec.num_shown])
        requests = tuple(_request(config, prompt, spec.guidance_scale, SIZES_SEED, row, size=size) for size in wanted)
        return Part(name="sizes", kind="draw", requests=requests, shows=True, measures=False)

    columns = [spec.guidance_scale] * GRID_COLUMNS
    parts = [part("grid", i, p, columns, GRID_SEED, same_noise=False) for i, p in enumerate(chosen)]
    half = chosen[: max(len(chosen) // 2, 1)]
    sweep = spec.guidance_sweep
    parts += [part("sweep", i, p, sweep, SWEEP_SEED, same_noise=True) for i, p in enumerate(half) if sweep]
    if config.data.crop == "buckets":
        parts += [sizes(i, prompt) for i, prompt in enumerate(half[:3])]
    for i, prompt in enumerate(half[:3]):
        request = _request(config, prompt, spec.guidance_scale, TRACE_SEED, i)
        parts.append(Part(name="trace", kind="trace", requests=(request,)))
    return parts


def _requests(
    config: DiffusionConfig, prompts: Sequence[str], purpose: int, sizes: Sequence[Size | None]
) -> list[ImageRequest]:
    """Image i of a set."""
    scale = config.evaluate.guidance_scale
    pairs = enumerate(zip(prompts, sizes, strict=True))
    return [_request(config, prompt, scale, purpose, i, size=size) for i, (prompt, size) in pairs]


def _request(
    config: DiffusionConfig, prompt: str, scale: float, purpose: int, *address: int, size: Size | None = None
) -> ImageRequest:
    seed = image_seed(config.evaluate.seed, purpose, *address)
    width, height = size or (None, None)
    return ImageRequest(prompt=prompt, seed=seed, guidance_scale=scale, width=width, height=height)


def _prompts(
    config: DiffusionConfig, captions: Sequence[str], splits: Sequence[str], buckets: Sequence[str]
) -> tuple[list[str], list[Size | None]]:
    """Prompt and size of each image: held-out captions in turn, or new scenes of generated shapes."""
    count = config.evaluate.num_images
    if _is_checked(config):
        return shapes.prompts(count, config.evaluate.seed, held_out=False), [None] * count
    held_out = [row for row, side in enumerate(splits) if side == "val"]
    rows = [held_out[i % len(held_out)] for i in range(count)]
    in_buckets = config.data.crop == "buckets"
    return [captions[row] for row in rows], [bucket_size(buckets[row]) if in_buckets else None for row in rows]


def _is_checked(config: DiffusionConfig) -> bool:
    """Whether images can be compared with their captions pixel by pixel."""
    return config.data.layout == "shapes"


def _part_size(config: DiffusionConfig) -> int:
    """Whole batches, and work for every worker."""
    batch = config.evaluate.batch_size
    share = -(-config.evaluate.num_images // config.compute.most_workers)
    return max(min(share, PART_IMAGES) // batch, 1) * batch


def _pieces(items: Sequence[Any], size: int) -> list[tuple[Any, ...]]:
    return [tuple(items[i : i + size]) for i in range(0, len(items), size)]
