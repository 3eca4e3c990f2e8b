"""Stage ``evaluate``: checkpoint to scores of every held-out image, pictures, and a report that stands alone."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from data_pipelines import storage
from data_pipelines.digests import digest_of
from data_pipelines.progress import track
from data_pipelines.shards.index import read_table, write_table
from flows.cluster.actors import Row, map_on_actors
from flows.metrics import METRICS
from flows.pipelines.restoration.clips import group_frames
from flows.pipelines.restoration.config import RestorationConfig
from flows.pipelines.restoration.evaluation.scoring import ImageRow, ImageScorer, RestoringJob
from flows.sharding.images import ImageShardFigures
from flows.stages.attempt import Attempt
from flows.stages.record import EvaluationFigures, Record
from flows.stages.shards import held_out_digest, shards_uri
from flows.stages.stage import Stage
from flows.training.figures import TrainingFigures
from unet_models.metrics.summary import MetricSummary, summarise_table
from unet_models.specs.restoration import ImageBundle, TileSpec

IMAGES = "images"
"""Output: one row per held-out image, with its scores."""
IMAGES_AT_ONCE = 8
"""Images that an actor is given at once."""


class RestorationScores(EvaluationFigures):
    """Figures of an evaluation: means over the held-out images; ``/baseline`` is the restoration without a network."""

    num_images: int
    """Held-out images that were scored."""


def evaluate_stage(
    config: RestorationConfig, shards: Record[ImageShardFigures], training: Record[TrainingFigures]
) -> Stage[RestorationScores]:
    """Plan the stage: its key holds the identity of the weights, the shards and the settings."""

    def compute(attempt: Attempt) -> RestorationScores:
        from flows.pipelines.restoration.evaluation.report import write_report

        rows = score_images(config, shards, attempt, build_bundle(config), training.output("weights"))
        summaries = summarise_images(rows)
        write_report(attempt, config, shards, training, summaries, rows)
        return RestorationScores(metrics={s.metric: s.mean for s in summaries}, num_images=len(rows))

    identity = config.evaluate.model_dump(mode="json")
    return Stage("evaluate", identity, (shards, training), compute, RestorationScores, uses_gpu=True)


def build_bundle(config: RestorationConfig) -> ImageBundle:
    """Build what the weights need beside them."""
    return ImageBundle(
        task=config.task,
        model=config.train.model,
        predict=TileSpec(**config.evaluate.model_dump(include=set(TileSpec.model_fields))),
        background=config.data.background,
        max_pixels=config.data.max_pixels,
    )


def score_images(
    config: RestorationConfig,
    shards: Record[ImageShardFigures],
    attempt: Attempt,
    bundle: ImageBundle,
    weights_uri: str,
) -> list[ImageRow]:
    """Restore and score every held-out image, sorted by id; ``images.parquet`` becomes an output of the attempt."""
    index = read_table(shards.output("index"), columns=["case_id", "split"]).to_pylist()
    job = RestoringJob(
        bundle=bundle,
        weights_uri=weights_uri,
        index_uri=shards.output("index"),
        shards_uri=shards_uri(shards),
        restored_uri=attempt.uri("restored"),
        seed=config.evaluate.seed,
        threads=config.compute.threads_per_worker,
        use_gpu=config.compute.use_gpu,
    )
    storage.write_bytes(attempt.uri("job.json"), job.model_dump_json(indent=1).encode())
    held_out = {number: row for number, row in enumerate(index) if row["split"] == "val"}
    groups = group_images(held_out, config.data.clips)
    items = [
        {"rows": json.dumps(group), "is_clip": bool(config.data.clips), "job": attempt.uri("job.json")}
        for group in groups
    ]
    rows = sorted(_score_all(items, len(held_out), config), key=lambda row: str(row["case_id"]))
    write_table(attempt.uri("images.parquet"), score_table(rows))
    attempt.add(IMAGES, attempt.uri("images.parquet"))
    return rows


def score_table(rows: Sequence[ImageRow]) -> pa.Table:
    """Build the table of scores, null where an image lacks one: the first frame of a clip has no temporal error."""
    names = dict.fromkeys(name for row in rows for name in row)
    return pa.Table.from_pylist([{name: row.get(name) for name in names} for row in rows])


def summarise_images(rows: Sequence[ImageRow]) -> list[MetricSummary]:
    """Compute mean and 95 % bootstrap interval of each metric that an image has, in the order of the table."""
    names = [name for name in METRICS if any(name in row for row in rows)]
    return [summarise_table(name, "", scores_of(rows, name)) for name in names]


def scores_of(rows: Sequence[ImageRow], metric: str) -> np.ndarray:
    """Return one metric of every image, (images, 1); NaN where an image has none."""
    return np.array([[row.get(metric, np.nan)] for row in rows], dtype=np.float64)


def evaluation_digest(config: RestorationConfig, shards: Record[ImageShardFigures]) -> str:
    """Compute the digest of what scores depend on beside the model."""
    task, clips = config.task.model_dump(mode="json"), config.data.clips
    return digest_of([held_out_digest(shards), config.evaluate.seed, task, clips])


def group_images(held_out: Mapping[int, Mapping[str, Any]], clip_pattern: str) -> list[list[int]]:
    """Group the rows of an index for the actors: the frames of each clip in the order of their ids, or a few images."""
    if not clip_pattern:
        rows = list(held_out)
        return [rows[i : i + IMAGES_AT_ONCE] for i in range(0, len(rows), IMAGES_AT_ONCE)]
    return list(group_frames({number: row["case_id"] for number, row in held_out.items()}, clip_pattern).values())


def _score_all(items: Sequence[Row], num_images: int, config: RestorationConfig) -> Iterator[ImageRow]:
    results = (json.loads(result["scores"]) for result in map_on_actors(ImageScorer, items, config.compute))
    for scored in track(((len(rows), rows) for rows in results), "evaluate", "images", num_images):
        yield from scored
