"""Prediction and scoring of all held-out cases, on the workers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from data_pipelines import storage
from data_pipelines.errors import ConfigError
from data_pipelines.progress import track
from data_pipelines.shards.index import read_table, write_table
from flows.cluster.actors import map_on_actors
from flows.pipelines.segmentation.bundle import Bundle
from flows.pipelines.segmentation.config import SegmentationConfig
from flows.pipelines.segmentation.evaluation.exits import ExitScore
from flows.pipelines.segmentation.evaluation.label_maps import FOLDER, LIST, write_list
from flows.pipelines.segmentation.evaluation.scoring import (
    CaseScorer,
    ClassScore,
    ScoringJob,
    read_exits,
    read_label_map,
    read_scores,
)
from flows.pipelines.segmentation.mirroring import (
    Folder,
)
from flows.pipelines.segmentation.shard import VolumeShardFigures
from flows.stages.attempt import Attempt
from flows.stages.record import Record
from flows.stages.shards import shards_uri


@dataclass(frozen=True, slots=True)
class Scored:
    """Results of the predictions of held-out cases."""

    scores: list[ClassScore]
    """Sorted by case."""
    exits: list[ExitScore]
    voxels: list[bytes]
    """Voxels that were drawn of each case, by row of the index; empty where none were asked for."""
    seconds: list[float]
    """Time of the prediction of each case."""


def score_cases(
    config: SegmentationConfig,
    shards: Record[VolumeShardFigures],
    attempt: Attempt,
    bundle: Bundle,
    weights_uri: str,
    raw_images: dict[str, tuple[str, ...]] | None = None,
    *,
    partner: Record[VolumeShardFigures] | None = None,
    folder: Folder = (),
    is_own: bool = False,
) -> Scored:
    """Predict and score every held-out case; write ``cases.parquet`` and ``LIST`` in a ``folder`` of the attempt.

    Of a model that the configuration describes (``is_own``) also compare early exits, where thresholds are given, and
    draw the voxels of its calibration. ``raw_images`` maps a key to the files of its case, for a model that does not
    take the shards' preprocessed images; ``partner`` has those that the bundle's partner takes.
    """
    index = read_table(shards.output("index"), columns=["case_id", "split"]).to_pylist()
    case_ids = {row: each["case_id"] for row, each in enumerate(index) if each["split"] == "val"}
    if not case_ids:
        raise ConfigError("the split holds no validation cases: nothing to evaluate (data.fold, data.splits)")
    from flows.pipelines.segmentation.calibration import voxels_per_stratum
    from flows.pipelines.segmentation.modalities import subsets_of

    job = ScoringJob(
        bundle=bundle,
        weights_uri=weights_uri,
        index_uri=shards.output("index"),
        shards_uri=shards_uri(shards),
        raw_images=raw_images,
        partner_uris=(partner.output("index"), shards_uri(partner)) if partner else None,
        predictions_uri=attempt.uri(*folder, FOLDER),
        tolerance_mm=config.evaluate.tolerance_mm,
        exit_thresholds=config.evaluate.exit_thresholds if is_own else (),
        threads=config.compute.threads_per_worker,
        use_gpu=config.compute.use_gpu,
        voxels_per_stratum=voxels_per_stratum(len(case_ids), bundle.labels.num_classes) if is_own else 0,
        subsets=tuple(subsets_of(bundle.model.fusion)),
    )
    job_uri = attempt.uri(*folder, "job.json")
    storage.write_bytes(job_uri, job.model_dump_json(indent=1).encode())
    results = sorted(_score_all(job_uri, case_ids, config), key=lambda result: result["row"])
    scores = sorted((score for result in results for score in read_scores(result)), key=lambda score: score.case_id)
    write_table(attempt.uri(*folder, "cases.parquet"), pa.Table.from_pylist([score.to_row() for score in scores]))
    storage.write_bytes(attempt.uri(*folder, LIST), write_list([read_label_map(result) for result in results]))
    exits = [score for result in results for score in read_exits(result)]
    voxels = [result["voxels"] for result in results if result["voxels"]]
    return Scored(scores, exits, voxels, [result["seconds"] for result in results])


def _score_all(job_uri: str, case_ids: Mapping[int, str], config: SegmentationConfig) -> Iterator[dict[str, Any]]:
    """Yield what ``CaseScorer`` returns for every case, given by its row of the index."""
    items = [{"row": row, "case_id": case_id, "job": job_uri} for row, case_id in case_ids.items()]
    finished = ((1, result) for result in map_on_actors(CaseScorer, items, config.compute))
    yield from track(finished, "evaluate", "cases", len(items))
