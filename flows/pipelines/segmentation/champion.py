"""The champion on a new version's held-out cases: predicted by its own bundle, scored and compared case by case."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from data_pipelines import storage
from data_pipelines.errors import InputError
from data_pipelines.shards.incremental import sample_key
from data_pipelines.shards.index import read_table
from data_pipelines.temporary import temporary_folder
from data_pipelines.volumes.sources.find import find_cases
from flows.config.specs import RegistrySpec
from flows.metrics import parse_metric_name
from flows.pipelines.segmentation.bundle import Bundle
from flows.pipelines.segmentation.config import SegmentationConfig
from flows.pipelines.segmentation.evaluate import CASES, EnsembleScores, SegmentationScores, evaluation_digest
from flows.pipelines.segmentation.evaluation.held_out import score_cases
from flows.pipelines.segmentation.mirroring import measure_variant
from flows.pipelines.segmentation.shard import VolumeShardFigures
from flows.registry.bundle import WEIGHTS, read_bundle
from flows.registry.champion import Champion, Compared, compare_scores, readable_bundle
from flows.registry.gate import Incomparable
from flows.stages.attempt import Attempt
from flows.stages.record import EvaluationFigures, Record
from flows.training.champion import evaluate_champion
from unet_models.metrics.summary import score_table

Rows = list[dict[str, Any]]
"""Rows of ``cases.parquet``: case, class and metrics."""


def compare_with_champion(
    config: SegmentationConfig,
    shards: Record[VolumeShardFigures],
    evaluation: Record[EvaluationFigures],
    champion: Champion,
    metric: str,
) -> Compared:
    """Score the champion on the held-out cases, where it was not yet, and compare it with the new version.

    Raises InputError where the champion cannot segment these cases, or was trained on one of them.
    """
    figures, stage = (EnsembleScores, "ensemble") if champion.has("ensemble") else (SegmentationScores, "evaluate")
    known = champion.find_evaluation(evaluation_digest(config, shards), config.storage_uri, figures, stage)
    return compare_rows(evaluation, known or _score_champion(config, shards, champion), metric, config.registry)


def compare_rows(
    evaluation: Record[EvaluationFigures], champions: Record[EvaluationFigures], metric: str, registry: RegistrySpec
) -> Compared:
    """Compare two evaluations of the same cases, case by case."""
    ours = _rows(evaluation)
    theirs_rows = _named_alike(_rows(champions), ours)
    parsed = parse_metric_name(metric)
    classes = [parsed.part] if parsed.part else sorted({row["class_name"] for row in ours})
    tables = [_table(rows, classes, parsed.metric.name) for rows in (ours, theirs_rows)]
    outcome = compare_scores(metric, tables[0], tables[1], registry.compare_level)
    return Compared(outcome, None if isinstance(outcome, Incomparable) else _side_by_side(ours, theirs_rows))


def _score_champion(
    config: SegmentationConfig, shards: Record[VolumeShardFigures], champion: Champion
) -> Record[SegmentationScores]:
    """Score the champion; a cache hit where these cases were scored before."""
    identity = {"tolerance_mm": config.evaluate.tolerance_mm}
    compute = partial(_compute, config, shards, champion)
    return evaluate_champion(config, champion, identity, (shards,), compute, SegmentationScores)


def _compute(
    config: SegmentationConfig, shards: Record[VolumeShardFigures], champion: Champion, attempt: Attempt
) -> SegmentationScores:
    with temporary_folder("champion") as folder:
        files = champion.fetch_bundle(folder)
        with readable_bundle():
            bundle = read_bundle(files, Bundle)
        check_fits(bundle, shards.figures)
        storage.copy(str(files / WEIGHTS), attempt.uri(WEIGHTS))
    images = raw_images(config, shards.figures, bundle)
    scored = score_cases(config, shards, attempt, bundle, attempt.uri(WEIGHTS), images)
    attempt.add(CASES, attempt.uri("cases.parquet"))
    tta, rows = bool(bundle.predict.tta), [score.to_row() for score in scored.scores]
    variant = measure_variant(tta, rows, scored.seconds, f"{attempt.name}/predictions")
    num_cases = len({score.case_id for score in scored.scores})
    return SegmentationScores(metrics={}, num_cases=num_cases, variants=(variant,), tta=tta)


def check_fits(bundle: Bundle, shards: VolumeShardFigures) -> None:
    """Raise InputError where a model segments other classes, takes another input, or averages several folds."""
    if bundle.num_members > 1:
        raise InputError(f"it averages {bundle.num_members} folds, and of these cases most were trained on")
    if bundle.labels != shards.labels:
        raise InputError(f"it segments {bundle.labels.describe()}, the data hold {shards.labels.describe()}")
    if bundle.channels != shards.channels:
        raise InputError(
            f"it takes the channels {', '.join(bundle.channels)}, the data have {', '.join(shards.channels)}"
        )


def raw_images(
    config: SegmentationConfig, shards: VolumeShardFigures, bundle: Bundle
) -> dict[str, tuple[str, ...]] | None:
    """Return key to raw files where the model preprocesses otherwise than the shards; None where they are its input."""
    parts = bundle.partner, bundle.previous
    if (bundle.preprocess, bundle.spacing, *parts) == (config.data.preprocess, shards.spacing, None, None):
        return None
    dataset = find_cases(config.data, storage.generated_folder())
    return {sample_key(case.case_id): case.images for case in dataset.cases}


def _rows(record: Record[EvaluationFigures]) -> Rows:
    """Read the scores, cases in one order."""
    rows: Rows = read_table(record.output(CASES)).to_pylist()
    return sorted(rows, key=lambda row: row["case_id"])


def _named_alike(theirs: Rows, ours: Rows) -> Rows:
    """Name cases as in our scores: earlier versions wrote the keys of their samples instead of their names."""
    names = {sample_key(row["case_id"]): row["case_id"] for row in ours}
    renamed = [row | {"case_id": names.get(row["case_id"], row["case_id"])} for row in theirs]
    return sorted(renamed, key=lambda row: row["case_id"])


def _table(rows: Rows, classes: list[str], metric: str) -> NDArray[np.float64]:
    return score_table([row for row in rows if row["class_name"] in classes], classes, metric)


def _side_by_side(ours: Rows, theirs: Rows) -> pa.Table:
    """Join the scores of both models: one row per case and class."""
    found = {(row["case_id"], row["class_name"]): row for row in theirs}
    metrics = [name for name in ours[0] if name not in ("case_id", "class_name", "row", "fold")]
    joined = []
    for row in ours:
        other = found.get((row["case_id"], row["class_name"]), {})
        values = {name: row[name] for name in metrics} | {f"champion {name}": other.get(name) for name in metrics}
        joined.append({"case": row["case_id"], "class": row["class_name"]} | values)
    return pa.Table.from_pylist(joined)
