"""From an evaluation's scores and predictions to its report and overlay pictures."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from data_pipelines import storage
from data_pipelines.shards.index import IMAGE, MASK
from data_pipelines.shards.reader import ShardReader
from data_pipelines.volumes.classes import Labels
from data_pipelines.volumes.preprocess import StoredGeometry, has_canonical_axes, prepare_labels
from flows.pipelines.segmentation.bundle import Bundle
from flows.pipelines.segmentation.config import SegmentationConfig
from flows.pipelines.segmentation.evaluation.cases import CaseView, Role, choose_cases
from flows.pipelines.segmentation.evaluation.choices import CandidateScore, MemberScore
from flows.pipelines.segmentation.evaluation.label_maps import FOLDER, read_map
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
    from flows.pipelines.segmentation.calibration import Calibration
    from flows.pipelines.segmentation.candidates import RankedCandidates
    from flows.pipelines.segmentation.evaluate import Evaluation
    from flows.pipelines.segmentation.folds import Fold
    from flows.pipelines.segmentation.postprocess import Choice
    from flows.pipelines.segmentation.segmenter import Segmenter


T = TypeVar("T")


def write_report(
    attempt: Attempt,
    config: SegmentationConfig,
    shards: Record[VolumeShardFigures],
    training: Record[TrainingFigures],
    found: Evaluation,
) -> None:
    """Write ``report.html`` and ``overlay.png`` (the worst case) as outputs of the attempt."""
    labels, predictions = found.bundle.labels, storage.join(attempt.stage_uri, found.chosen.predictions)
    source = _Source(shards, predictions, labels, _gated_segmenter(found.bundle, training))
    views = _views(found.scores, lambda _: source)
    page = SegmentationPage(
        title=f"{config.registry.name}: {shards.figures.dataset}",
        summaries=found.summaries,
        scores=found.scores,
        curves={"": curves_by_name(read_curves(training))},
        remark=config.train.selection_remark,
        views=views,
        problems=read_problems(shards),
        config=config.model_dump(mode="json"),
        lineage=_lineage(attempt.key, shards, training),
        classes=labels.numbers,
        notices=read_notices(shards),
        times={"": training.figures.times} if training.figures.times else {},
        init={"": training.figures.init} if training.figures.init else {},
        exits=found.exits,
        calibration=found.calibration,
        variants=found.variants,
    )
    _write(attempt, page)


def write_ensemble_report(
    attempt: Attempt,
    config: SegmentationConfig,
    comparison: RankedCandidates,
    scores: Mapping[int, Sequence[ClassScore]],
    summaries: Sequence[MetricSummary],
    choice: Choice,
    calibration: Calibration | None,
    fold_dice: Mapping[int, float],
) -> None:
    """Write the report of several folds: scores of all cases, those of each fold, candidates, postprocessing."""
    folds = comparison.folds
    labels, names = folds[0].shards.figures.labels, {fold.number: f"fold {fold.number}" for fold in folds}
    sources = {
        fold.number: _Source(fold.shards, attempt.uri(FOLDER) if choice.kept else fold.predictions_uri, labels)
        for fold in folds
    }
    held_out = {score.case_id: number for number, found in scores.items() for score in found}
    trained = _networks(comparison)
    times = {name: network.training.figures.times for name, network in trained.items()}
    every = [score for found in scores.values() for score in found]
    first = folds[0].shards
    page = SegmentationPage(
        title=f"{config.registry.name}: {first.figures.dataset}",
        summaries=summaries,
        scores=every,
        curves={name: curves_by_name(read_curves(network.training)) for name, network in trained.items()},
        remark=config.train.selection_remark,
        views=_views(every, lambda case_id: sources[held_out[case_id]]),
        problems=_once(problem for fold in folds for problem in read_problems(fold.shards)),
        config=config.model_dump(mode="json"),
        lineage={
            f"{name} {what}": value
            for name, network in trained.items()
            for what, value in _lineage(network.evaluation.key, network.shards, network.training).items()
        }
        | {"ensemble key": attempt.key},
        classes=labels.numbers,
        notices=_once(notice for fold in folds for notice in read_notices(fold.shards)),
        times={name: split for name, split in times.items() if split is not None},
        init={name: init for name, each in trained.items() if (init := each.training.figures.init) is not None},
        choice=choice,
        calibration=calibration,
        variants=comparison.variants,
        members=[
            MemberScore(names[number], len({score.case_id for score in found}), fold_dice[number])
            for number, found in scores.items()
        ]
        if len(folds) > 1
        else [],
        candidates=_compared(comparison),
    )
    _write(attempt, page)


def _networks(comparison: RankedCandidates) -> dict[str, Fold]:
    """Return the networks of the registered model by name: of each fold, and of each candidate where it has several."""
    found = comparison.networks(comparison.best)
    return {
        f"fold {fold.number}{f', {name}' if len(found) > 1 else ''}": fold
        for name, each in found.items()
        for fold in each.folds
    }


def _compared(comparison: RankedCandidates) -> list[CandidateScore]:
    """Return the scores of the candidates, the best first; none where there is one alone."""
    found = [_describe(comparison, name) for name in comparison.candidates]
    return sorted(found, key=lambda each: not each.is_chosen) if len(found) > 1 else []


def _describe(comparison: RankedCandidates, name: str) -> CandidateScore:
    """Describe a candidate with those whose networks it predicts with."""
    candidate = comparison.candidates[name]
    networks = comparison.networks(candidate).values()
    return CandidateScore(
        name,
        name == comparison.name,
        [each.config.train.patch_size for each in networks],
        [each.folds[0].shards.figures.spacing for each in networks],
        sum(fold.training.figures.step for each in networks for fold in each.folds),
        candidate.summary,
    )


def _once(found: Iterable[T]) -> list[T]:
    """Return each of what several folds found once."""
    return list(dict.fromkeys(found))


def _write(attempt: Attempt, page: SegmentationPage) -> None:
    attempt.write("report", "report.html", segmentation_page(page).encode())
    if page.views:
        attempt.write("overlay", "overlay.png", page.views[0].planes[0].png)


def _lineage(key: str, shards: Record[VolumeShardFigures], training: Record[TrainingFigures]) -> dict[str, str]:
    return {
        "shard key": shards.key,
        "shard digest": shards.digest,
        "train key": training.key,
        "train digest": training.digest,
        "evaluate key": key,
        "training steps": str(training.figures.step),
    }


def _gated_segmenter(bundle: Bundle, training: Record[TrainingFigures]) -> Segmenter | None:
    """Load the model where its network has attention gates, whose maps the report shows."""
    if not {"gated", "gated_coarse"}.intersection(bundle.model.skips):
        return None
    from flows.pipelines.segmentation.segmenter import Segmenter

    with storage.local_file(training.output("weights")) as weights:
        return Segmenter(bundle, weights)


@dataclass(frozen=True, slots=True)
class _Source:
    """Location of the images and predictions of cases."""

    shards: Record[VolumeShardFigures]
    predictions_uri: str
    labels: Labels
    segmenter: Segmenter | None = None
    """Model whose attention gates are drawn."""


def _views(scores: Sequence[ClassScore], find_source: Callable[[str], _Source]) -> list[CaseView]:
    """Draw the worst case, the median and the best."""
    chosen = choose_cases(scores)
    return [_view(find_source(case_id), role, case_id, dice, row) for role, (case_id, dice, row) in chosen.items()]


def _view(source: _Source, role: Role, case_id: str, dice: float, row: int) -> CaseView:
    reader = ShardReader.from_uri(source.shards.output("index"), shards_uri(source.shards))
    done, segmenter = read_stored_geometry(reader, row), source.segmenter
    prediction = prepare_labels(read_map(source.predictions_uri, case_id, source.labels, done), done)
    mask = reader.array(row, MASK)
    truth = np.where(mask < source.labels.num_classes, mask, 0)  # no outline around what is ignored
    image, is_canonical = reader.array(row, IMAGE), has_canonical_axes(done, done.geometry)
    planes = overlay_planes(image, truth, prediction, done.spacing, is_canonical=is_canonical)
    gates = _draw_gates(segmenter, image, done) if segmenter is not None else {}
    return CaseView(case_id, role, dice, planes, gates, is_canonical)


def _draw_gates(segmenter: Segmenter, image: np.ndarray, done: StoredGeometry) -> dict[str, bytes]:
    from flows.pipelines.segmentation.explain import gate_maps

    is_canonical = has_canonical_axes(done, done.geometry)
    return {
        name: draw_heat(image, weights, done.spacing, is_canonical=is_canonical)
        for name, weights in gate_maps(segmenter, image).items()
    }
