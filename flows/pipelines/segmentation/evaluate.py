"""Stage ``evaluate``: checkpoint to scores of every held-out case, pictures, and a report that stands alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from data_pipelines import storage
from data_pipelines.digests import digest_of
from data_pipelines.errors import ConfigError
from data_pipelines.progress import track
from data_pipelines.shards.index import read_table, write_table
from data_pipelines.volumes.specs import InputSpec
from flows.cluster.actors import map_on_actors
from flows.pipelines.segmentation.bundle import Bundle
from flows.pipelines.segmentation.config import SegmentationConfig
from flows.pipelines.segmentation.evaluation.exits import ExitScore
from flows.pipelines.segmentation.evaluation.scoring import (
    CaseScorer,
    ClassScore,
    ScoringJob,
    read_exits,
    read_scores,
    subset_dice,
)
from flows.pipelines.segmentation.shard import VolumeShardFigures
from flows.stages.attempt import Attempt
from flows.stages.record import EvaluationFigures, Record
from flows.stages.shards import held_out_digest, shards_uri
from flows.stages.stage import Stage
from flows.training.figures import TrainingFigures
from unet_models.metrics.summary import MEAN_CLASS, MetricSummary, summarise
from unet_models.specs.segmentation import PredictSpec

CASES = "cases"
"""Output: one row per held-out case and class, with its scores."""


class SegmentationScores(EvaluationFigures):
    """Figures of an evaluation: ``dice`` is the mean over the foreground classes, ``dice/NAME`` one class."""

    num_cases: int
    """Held-out cases that were scored."""
    predictions: str
    """Folder of the label maps, relative to the stage's folder."""


def evaluate_stage(
    config: SegmentationConfig, shards: Record[VolumeShardFigures], training: Record[TrainingFigures]
) -> Stage[SegmentationScores]:
    """Plan the stage: its key holds the identity of the weights, the shards and the settings."""

    def compute(attempt: Attempt) -> SegmentationScores:
        return _evaluate(config, shards, training, attempt)

    identity = config.evaluate.model_dump(mode="json")
    return Stage("evaluate", identity, (shards, training), compute, SegmentationScores, uses_gpu=True)


def build_bundle(config: SegmentationConfig, shards: VolumeShardFigures) -> Bundle:
    """Build what the weights need beside them."""
    return Bundle(
        model=config.train.model,
        labels=shards.labels,
        channels=shards.channels,
        patch_size=config.train.patch_size,
        preprocess=config.data.preprocess,
        spacing=shards.spacing,
        mirror_axes=config.train.augment.mirrored(config.data.ndim),
        predict=PredictSpec(**config.evaluate.model_dump(include=set(PredictSpec.model_fields))),
        trained_range=shards.trained_range,
        limits=InputSpec(**config.data.model_dump(include=set(InputSpec.model_fields))),
    )


def _evaluate(
    config: SegmentationConfig,
    shards: Record[VolumeShardFigures],
    training: Record[TrainingFigures],
    attempt: Attempt,
) -> SegmentationScores:
    from flows.pipelines.segmentation.evaluation.report import write_report

    bundle = build_bundle(config, shards.figures)
    thresholds = config.evaluate.exit_thresholds
    scores, exits = score_cases(config, shards, attempt, bundle, training.output("weights"), exit_thresholds=thresholds)
    summaries = summarise([score.to_row() for score in scores])
    write_report(attempt, config, shards, training, bundle, summaries, scores, exits)
    num_cases = len({score.case_id for score in scores})
    return SegmentationScores(
        metrics=flat_metrics(summaries) | {f"dice[{name}]": dice for name, dice in subset_dice(scores).items()},
        num_cases=num_cases,
        predictions=f"{attempt.name}/predictions",
    )


def score_cases(
    config: SegmentationConfig,
    shards: Record[VolumeShardFigures],
    attempt: Attempt,
    bundle: Bundle,
    weights_uri: str,
    raw_images: dict[str, tuple[str, ...]] | None = None,
    exit_thresholds: tuple[float, ...] = (),
) -> tuple[list[ClassScore], list[ExitScore]]:
    """Predict and score every held-out case, sorted by case; ``cases.parquet`` becomes an output of the attempt.

    Also compare early exits at ``exit_thresholds``, where there are any. ``raw_images`` maps a key to the files of its
    case, for a model that does not take the shards' preprocessed images.
    """
    index = read_table(shards.output("index"))
    rows = np.flatnonzero(np.array(index["split"].to_pylist()) == "val")
    if not len(rows):
        raise ConfigError("the split holds no validation cases: nothing to evaluate (data.fold, data.splits)")
    from flows.pipelines.segmentation.modalities import subsets_of

    job = ScoringJob(
        bundle=bundle,
        weights_uri=weights_uri,
        index_uri=shards.output("index"),
        shards_uri=shards_uri(shards),
        raw_images=raw_images,
        predictions_uri=attempt.uri("predictions"),
        tolerance_mm=config.evaluate.tolerance_mm,
        exit_thresholds=exit_thresholds,
        threads=config.compute.threads_per_worker,
        use_gpu=config.compute.use_gpu,
        subsets=tuple(subsets_of(bundle.model.fusion)),
    )
    storage.write_bytes(attempt.uri("job.json"), job.model_dump_json(indent=1).encode())
    results = list(_score_all(attempt.uri("job.json"), rows.tolist(), config))
    scores = sorted((score for result in results for score in read_scores(result)), key=lambda score: score.case_id)
    write_table(attempt.uri("cases.parquet"), pa.Table.from_pylist([score.to_row() for score in scores]))
    attempt.add(CASES, attempt.uri("cases.parquet"))
    return scores, [score for result in results for score in read_exits(result)]


def evaluation_digest(config: SegmentationConfig, shards: Record[VolumeShardFigures]) -> str:
    """Compute the digest of what scores depend on beside the model."""
    labels = shards.figures.labels.model_dump()  # of which regions do not change the samples
    return digest_of([held_out_digest(shards), config.evaluate.tolerance_mm, labels])


def _score_all(job_uri: str, rows: Sequence[int], config: SegmentationConfig) -> Iterator[dict[str, Any]]:
    """Yield what ``CaseScorer`` returns for every case."""
    items = [{"row": row, "job": job_uri} for row in rows]
    finished = ((1, result) for result in map_on_actors(CaseScorer, items, config.compute))
    yield from track(finished, "evaluate", "cases", len(rows))


def flat_metrics(summaries: Sequence[MetricSummary]) -> dict[str, float]:
    """Flatten summaries: ``dice`` for the foreground mean, ``dice/NAME`` for a class; undefined ones are left out."""
    return {
        s.metric if s.class_name == MEAN_CLASS else f"{s.metric}/{s.class_name}": s.mean
        for s in summaries
        if np.isfinite(s.mean)
    }
