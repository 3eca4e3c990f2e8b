"""From an evaluation's scores and predictions to its report and overlay pictures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from data_pipelines import storage
from data_pipelines.shards.index import IMAGE, MASK
from data_pipelines.shards.reader import ShardReader
from data_pipelines.volumes.classes import Labels
from data_pipelines.volumes.files import read_volume
from data_pipelines.volumes.preprocess import prepare_labels
from flows.pipelines.segmentation.bundle import Bundle
from flows.pipelines.segmentation.config import SegmentationConfig
from flows.pipelines.segmentation.evaluation.cases import CaseView, Role, choose_cases
from flows.pipelines.segmentation.evaluation.exits import ExitScore
from flows.pipelines.segmentation.evaluation.page import SegmentationPage, segmentation_page
from flows.pipelines.segmentation.evaluation.scoring import ClassScore, read_stored_geometry
from flows.pipelines.segmentation.shard import VolumeShardFigures
from flows.report.heat import draw_heat
from flows.report.overlays import overlay_planes
from flows.stages.attempt import Attempt
from flows.stages.record import Record
from flows.stages.shards import read_notices, read_problems, shards_uri
from flows.training.curves import curves_by_name, read_curves
from flows.training.figures import TrainingFigures
from unet_models.metrics.summary import MetricSummary

if TYPE_CHECKING:
    from flows.pipelines.segmentation.segmenter import Segmenter

NO_LIMIT = 1 << 40
"""Voxels: the label maps are our own."""


def write_report(
    attempt: Attempt,
    config: SegmentationConfig,
    shards: Record[VolumeShardFigures],
    training: Record[TrainingFigures],
    bundle: Bundle,
    summaries: Sequence[MetricSummary],
    scores: Sequence[ClassScore],
    exits: Sequence[ExitScore] = (),
) -> None:
    """Write ``report.html`` and ``overlay.png`` (the worst case) as outputs of the attempt."""
    segmenter = _gated_segmenter(bundle, training)
    views = _views(attempt, shards, scores, bundle.labels, segmenter)
    page = SegmentationPage(
        title=f"{config.registry.name}: {shards.figures.dataset}",
        summaries=summaries,
        scores=scores,
        curves=curves_by_name(read_curves(training)),
        remark=config.train.selection_remark,
        views=views,
        problems=read_problems(shards),
        config=config.model_dump(mode="json"),
        lineage=_lineage(attempt, shards, training),
        classes=bundle.labels.numbers,
        notices=read_notices(shards),
        times=training.figures.times,
        exits=exits,
    )
    attempt.write("report", "report.html", segmentation_page(page).encode())
    if views:
        attempt.write("overlay", "overlay.png", views[0].planes[0].png)


def _lineage(attempt: Attempt, shards: Record[VolumeShardFigures], training: Record[TrainingFigures]) -> dict[str, str]:
    return {
        "shard key": shards.key,
        "shard digest": shards.digest,
        "train key": training.key,
        "train digest": training.digest,
        "evaluate key": attempt.key,
        "training steps": str(training.figures.step),
    }


def _gated_segmenter(bundle: Bundle, training: Record[TrainingFigures]) -> Segmenter | None:
    """Load the model where its network has attention gates, whose maps the report shows."""
    if not {"gated", "gated_coarse"}.intersection(bundle.model.skips):
        return None
    from flows.pipelines.segmentation.segmenter import Segmenter

    with storage.local_file(training.output("weights")) as weights:
        return Segmenter(bundle, weights)


def _views(
    attempt: Attempt,
    shards: Record[VolumeShardFigures],
    scores: Sequence[ClassScore],
    labels: Labels,
    segmenter: Segmenter | None,
) -> list[CaseView]:
    """Draw the worst case, the median and the best."""
    reader = ShardReader.from_uri(shards.output("index"), shards_uri(shards))
    chosen = choose_cases(scores)
    return [
        _view(reader, attempt, role, case_id, dice, row, labels, segmenter)
        for role, (case_id, dice, row) in chosen.items()
    ]


def _view(
    reader: ShardReader,
    attempt: Attempt,
    role: Role,
    case_id: str,
    dice: float,
    row: int,
    labels: Labels,
    segmenter: Segmenter | None,
) -> CaseView:
    done = read_stored_geometry(reader, row)
    with storage.local_file(attempt.uri("predictions", f"{case_id}.nii.gz")) as path:
        stored = labels.read_numbers(np.asarray(read_volume(path, NO_LIMIT).array))
    prediction = prepare_labels(stored.reshape(done.stored_shape), done)
    planes = overlay_planes(reader.array(row, IMAGE), reader.array(row, MASK), prediction, done.spacing)
    gates = _draw_gates(segmenter, reader.array(row, IMAGE), done.spacing) if segmenter is not None else {}
    return CaseView(case_id, role, dice, planes, gates)


def _draw_gates(segmenter: Segmenter, image: np.ndarray, spacing: Sequence[float]) -> dict[str, bytes]:
    from flows.pipelines.segmentation.explain import gate_maps

    return {name: draw_heat(image, weights, spacing) for name, weights in gate_maps(segmenter, image).items()}
