"""From an evaluation's scores to its report and overlay pictures."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from data_pipelines import storage
from data_pipelines.volumes.preprocess import Preprocessing, prepare_labels
from data_pipelines.shards.reader import ShardReader
from data_pipelines.volumes.files import read_volume
from flows.pipelines.segmentation.config import SegmentationConfig
from flows.pipelines.segmentation.evaluation.cases import CaseView
from flows.report.overlays import overlay_planes
from flows.pipelines.segmentation.evaluation.page import segmentation_report
from flows.stages.shards import read_problems, shards_uri
from flows.stages.attempt import Attempt
from flows.stages.record import Record
from flows.training.stage import curves_by_name, read_curves
from unet_models.metrics.summary import MetricSummary


def write_report(
    attempt: Attempt,
    config: SegmentationConfig,
    shards: Record,
    training: Record,
    summaries: Sequence[MetricSummary],
    case_rows: Sequence[dict[str, Any]],
) -> None:
    """Write ``report.html`` and ``overlay.png`` (the worst case) into the attempt."""
    views = _views(attempt, shards, case_rows)
    html = segmentation_report(
        f"{config.registry.name}: {shards.figures['dataset']}",
        summaries,
        case_rows,
        curves_by_name(read_curves(training)),
        views,
        read_problems(shards),
        config.model_dump(mode="json"),
        _lineage(attempt, shards, training),
        shards.figures["classes"],
    )
    attempt.write("report", "report.html", html.encode())
    if views:
        attempt.write("overlay", "overlay.png", views[0].planes[0].png)


def _lineage(attempt: Attempt, shards: Record, training: Record) -> dict[str, str]:
    return {
        "shard key": shards.key,
        "shard digest": shards.digest,
        "train key": training.key,
        "train digest": training.digest,
        "evaluate key": attempt.key,
        "training steps": str(training.figures["step"]),
    }


def _views(attempt: Attempt, shards: Record, case_rows: Sequence[dict[str, Any]]) -> list[CaseView]:
    """The worst case, the median and the best."""
    reader = ShardReader.from_uri(shards.output("index"), shards_uri(shards))
    chosen = _choose(case_rows)
    return [_view(reader, attempt, role, case_id, dice, row) for role, (case_id, dice, row) in chosen.items()]


def _choose(case_rows: Sequence[dict[str, Any]]) -> dict[str, tuple[str, float, int]]:
    """role -> (case, mean Dice over its classes, index row) of the worst, the median and the best case."""
    values: dict[str, list[float]] = {}
    rows: dict[str, int] = {}
    for row in case_rows:
        values.setdefault(row["case_id"], []).append(row["dice"])
        rows[row["case_id"]] = row["row"]
    means = {case_id: float(np.nanmean(dice)) for case_id, dice in values.items() if np.isfinite(dice).any()}
    ranked = sorted((dice, case_id) for case_id, dice in means.items())
    if not ranked:
        return {}
    places = {"worst": 0, "median": len(ranked) // 2, "best": len(ranked) - 1}
    chosen = {role: ranked[place] for role, place in places.items()}
    return {role: (case_id, dice, rows[case_id]) for role, (dice, case_id) in chosen.items()}


def _view(reader: ShardReader, attempt: Attempt, role: Any, case_id: str, dice: float, row: int) -> CaseView:
    geometry = json.loads(bytes(reader.read(row, "geometry.json")))
    geometry.pop("affine")
    done = Preprocessing.from_json(geometry)
    with storage.local_file(attempt.uri("predictions", f"{case_id}.nii.gz")) as path:
        stored = np.asarray(read_volume(path, 1 << 40).array)
    prediction = prepare_labels(stored.reshape(done.stored_shape), done)
    planes = overlay_planes(reader.array(row, "image.npy"), reader.array(row, "mask.npy"), prediction, done.spacing)
    return CaseView(case_id, role, dice, planes)
