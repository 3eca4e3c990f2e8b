"""Stage ``evaluate``: checkpoint to scores of every held-out case, pictures, and a report that stands alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from pydantic import ConfigDict, Field

from data_pipelines import storage
from data_pipelines.digests import digest_of
from data_pipelines.volumes.specs import InputSpec
from flows.pipelines.segmentation.bundle import Bundle
from flows.pipelines.segmentation.config import BASE, SegmentationConfig
from flows.pipelines.segmentation.evaluation.exits import ExitScore
from flows.pipelines.segmentation.evaluation.held_out import Scored, score_cases
from flows.pipelines.segmentation.evaluation.label_maps import FOLDER, LIST, MAPS, maps_exist
from flows.pipelines.segmentation.evaluation.scoring import (
    ClassScore,
    subset_dice,
)
from flows.pipelines.segmentation.mirroring import (
    Folder,
    Variant,
    choose_variant,
    measure_variant,
    tried_variants,
    variant_output,
)
from flows.pipelines.segmentation.postprocess import Postprocessing
from flows.pipelines.segmentation.shard import VolumeShardFigures
from flows.stages.attempt import Attempt
from flows.stages.record import EvaluationFigures, Record
from flows.stages.shards import held_out_digest
from flows.stages.stage import Stage
from flows.training.figures import TrainingFigures
from unet_models.metrics.summary import MEAN_CLASS, MetricSummary, summarise
from unet_models.specs.segmentation import PredictSpec

if TYPE_CHECKING:
    from flows.pipelines.segmentation.calibration import Calibration

CASES = "cases"
"""Output: one row per held-out case and class, with its scores."""
VOXELS = "voxels"
"""Output: voxels of the held-out cases, from which calibration is fitted."""
FORMAT = 3
"""Part of the stage's key; raised when its outputs change for the same specification."""


class SegmentationScores(EvaluationFigures):
    """Figures of an evaluation: ``dice`` is the mean over the foreground classes, ``dice/NAME`` one class."""

    num_cases: int
    """Held-out cases that were scored."""
    variants: tuple[Variant, ...]
    """Predictions with and without test-time mirroring, as far as they were tried: the outputs ``cases`` and ``voxels``
    of each have its name, and ``cases`` alone are those of the chosen one."""
    tta: bool
    """True where the chosen one mirrors."""
    temperatures: tuple[float, ...] = ()
    """Temperature of each output, fitted on the cases that are scored."""


class EnsembleScores(EvaluationFigures):
    """Figures of an ensemble: the mean over all cases, each scored by the member that was not trained on it."""

    model_config = ConfigDict(ser_json_inf_nan="strings")  # a record takes no constants

    num_cases: int
    folds: tuple[int, ...]
    """Fold of each member."""
    step: int
    """Training steps of all members together."""
    fold_dice: tuple[float, ...]
    """Mean Dice of each member on its held-out cases; NaN where earlier folds hold them all out, too."""
    postprocessing: Postprocessing = Postprocessing()
    """Steps that raise the mean Dice over all cases; the scores are with them."""
    tta: bool
    """True where test-time mirroring is on, chosen over all cases where it was to be."""
    temperatures: tuple[float, ...] = ()
    """Temperature of each output, fitted on all cases, each predicted by the member that has not seen it."""
    candidate: str = BASE
    """Name of the configuration that was chosen."""
    candidate_dice: dict[str, float] = Field(default={})
    """Mean Dice over all cases of each candidate, before postprocessing."""


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Results of an evaluation, for its report."""

    bundle: Bundle
    summaries: list[MetricSummary]
    scores: list[ClassScore]
    exits: list[ExitScore]
    variants: tuple[Variant, ...]
    chosen: Variant
    calibration: Calibration | None


def evaluate_stage(
    config: SegmentationConfig, shards: Record[VolumeShardFigures], training: Record[TrainingFigures]
) -> Stage[SegmentationScores]:
    """Plan the stage: its key holds the identity of the weights, the shards and the settings."""

    def compute(attempt: Attempt) -> SegmentationScores:
        return _evaluate(config, shards, training, attempt)

    identity = config.evaluate.model_dump(mode="json") | {"format": FORMAT}
    return Stage("evaluate", identity, (shards, training), compute, SegmentationScores, maps_exist, uses_gpu=True)


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
        num_previous=shards.num_previous,
        limits=InputSpec(**config.data.model_dump(include=set(InputSpec.model_fields))),
    )


def _evaluate(
    config: SegmentationConfig,
    shards: Record[VolumeShardFigures],
    training: Record[TrainingFigures],
    attempt: Attempt,
) -> SegmentationScores:
    from flows.pipelines.segmentation.calibration import calibrate, read_voxels
    from flows.pipelines.segmentation.evaluation.report import write_report

    bundle = build_bundle(config, shards.figures)
    tried = [
        _predict(config, shards, training, attempt, bundle.with_choices(tta=tta), folder)
        for tta, folder in tried_variants(config.evaluate.tta, bundle.mirror_axes).items()
    ]
    variants = tuple(variant for variant, _ in tried)
    chosen = choose_variant(variants)
    scored = tried[variants.index(chosen)][1]
    attempt.outputs[CASES] = attempt.outputs[variant_output(CASES, tta=chosen.tta)]
    summaries = summarise([score.to_row() for score in scored.scores])
    calibration = calibrate(read_voxels(scored.voxels), bundle.labels)
    bundle = bundle.with_choices(tta=chosen.tta)
    found = Evaluation(bundle, summaries, scored.scores, scored.exits, variants, chosen, calibration)
    write_report(attempt, config, shards, training, found)
    subsets = {f"dice[{name}]": dice for name, dice in subset_dice(scored.scores).items()}
    return SegmentationScores(
        metrics=flat_metrics(summaries) | subsets | (calibration.metrics if calibration else {}),
        num_cases=len({score.case_id for score in scored.scores}),
        variants=variants,
        tta=chosen.tta,
        temperatures=calibration.temperatures if calibration else (),
    )


def _predict(
    config: SegmentationConfig,
    shards: Record[VolumeShardFigures],
    training: Record[TrainingFigures],
    attempt: Attempt,
    bundle: Bundle,
    folder: Folder,
) -> tuple[Variant, Scored]:
    """Predict the held-out cases as a bundle says; scores, voxels and label maps become outputs of the attempt."""
    from flows.pipelines.segmentation.calibration import join_voxels

    tta = bool(bundle.predict.tta)
    scored = score_cases(config, shards, attempt, bundle, training.output("weights"), folder=folder, is_own=True)
    attempt.add(variant_output(CASES, tta=tta), attempt.uri(*folder, "cases.parquet"))
    attempt.add(variant_output(MAPS, tta=tta), attempt.uri(*folder, LIST))
    voxels = join_voxels(scored.voxels)
    attempt.write(variant_output(VOXELS, tta=tta), "/".join([*folder, "voxels.safetensors"]), voxels)
    rows = [score.to_row() for score in scored.scores]
    return measure_variant(tta, rows, scored.seconds, storage.join(attempt.name, *folder, FOLDER)), scored


def evaluation_digest(config: SegmentationConfig, shards: Record[VolumeShardFigures]) -> str:
    """Compute the digest of what scores depend on beside the model."""
    labels = shards.figures.labels.model_dump()  # of which regions do not change the samples
    return digest_of([held_out_digest(shards), config.evaluate.tolerance_mm, labels])


def flat_metrics(summaries: Sequence[MetricSummary]) -> dict[str, float]:
    """Flatten summaries: ``dice`` for the foreground mean, ``dice/NAME`` for a class; undefined ones are left out."""
    return {
        s.metric if s.class_name == MEAN_CLASS else f"{s.metric}/{s.class_name}": s.mean
        for s in summaries
        if np.isfinite(s.mean)
    }
