"""Folds: a run for each, then one model that averages theirs; each case is scored by the one that has not seen it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property, partial
from typing import Any

import numpy as np
import pyarrow as pa

from data_pipelines import storage
from data_pipelines.digests import digest_of
from data_pipelines.errors import ConfigError, InputError
from data_pipelines.shards.index import read_table, write_table
from data_pipelines.shards.reader import ShardReader
from data_pipelines.volumes.formats.nifti import write_nifti
from data_pipelines.volumes.sources.find import find_cases
from data_pipelines.volumes.splits import find_folds
from flows.pipelines.segmentation.config import SegmentationConfig
from flows.pipelines.segmentation.evaluate import (
    CASES,
    SegmentationScores,
    build_bundle,
    evaluation_digest,
    flat_metrics,
)
from flows.pipelines.segmentation.evaluation.scoring import (
    ClassScore,
    read_prediction,
    read_stored_geometry,
    stored_truth,
)
from flows.pipelines.segmentation.postprocess import Case, Choice, Postprocessing, choose_postprocessing
from flows.pipelines.segmentation.shard import VolumeShardFigures
from flows.registry.champion import Champion, Compared
from flows.registry.register import RegistrationFigures, register_stage
from flows.stages.attempt import Attempt
from flows.stages.pipeline import Records, branch_key
from flows.stages.record import EvaluationFigures, Record
from flows.stages.shards import shards_uri
from flows.stages.stage import Stage
from flows.training.figures import TrainingFigures
from unet_models.metrics.summary import score_case, summarise

FOLD = "fold"
"""Column of the scores: fold in which the case was held out."""


class EnsembleScores(EvaluationFigures):
    """Figures of an ensemble: the mean over all cases, each scored by the member that was not trained on it."""

    num_cases: int
    folds: tuple[int, ...]
    """Fold of each member."""
    step: int
    """Training steps of all members together."""
    fold_dice: tuple[float, ...]
    """Mean Dice of each member on its held-out cases."""
    postprocessing: Postprocessing = Postprocessing()
    """Steps that raise the mean Dice over all cases; the scores are with them."""


class Fold:
    """Records of one fold's run."""

    def __init__(self, number: int, done: Records, place: int) -> None:
        self.number = number
        self.shards: Record[VolumeShardFigures] = done[branch_key("shard", place)]
        self.training: Record[TrainingFigures] = done[branch_key("train", place)]
        self.evaluation: Record[SegmentationScores] = done[branch_key("evaluate", place)]

    @property
    def predictions_uri(self) -> str:
        """Folder of the label maps of its held-out cases."""
        return storage.join(self.evaluation.uri, self.evaluation.figures.predictions)

    @cached_property
    def reader(self) -> ShardReader:
        """Its samples."""
        return ShardReader.from_uri(self.shards.output("index"), shards_uri(self.shards))

    def load_case(self, case_id: str, row: int) -> Case:
        """Read prediction and truth of a held-out case, in its original geometry."""
        done = read_stored_geometry(self.reader, row)
        prediction = read_prediction(self.predictions_uri, case_id, self.shards.figures.labels, done)
        return Case(prediction, stored_truth(self.reader, row, done), done.stored_spacing)

    def affine(self, row: int) -> np.ndarray:
        """Return the affine of a case as stored."""
        return read_stored_geometry(self.reader, row).geometry.affine_array()


def split_folds(config: SegmentationConfig) -> tuple[SegmentationConfig, ...]:
    """Return a configuration for each fold of several."""
    return tuple(_of_fold(config, fold) for fold in _folds(config))


def _of_fold(config: SegmentationConfig, fold: int) -> SegmentationConfig:
    return config.model_copy(update={"data": config.data.model_copy(update={"fold": fold})})


def _folds(config: SegmentationConfig) -> tuple[int, ...]:
    known = find_folds(find_cases(config.data, storage.cache_folder() / "generated"), config.data)
    if config.data.fold == "all" or isinstance(config.data.fold, int):
        return known
    if unknown := sorted(set(config.data.fold) - set(known)):
        raise ConfigError(f"data.fold: {unknown} out of range; there are folds 0..{len(known) - 1}")
    return config.data.fold


def find_done(config: SegmentationConfig, done: Records) -> list[Fold]:
    """Gather the records of each fold."""
    return [Fold(number, done, place) for place, number in enumerate(_folds(config))]


def ensemble_stage(config: SegmentationConfig, folds: Sequence[Fold]) -> Stage[EnsembleScores]:
    """Plan the stage: trained members to one model, and their scores to those of all cases."""
    inputs = [record for fold in folds for record in (fold.shards, fold.training, fold.evaluation)]

    def compute(attempt: Attempt) -> EnsembleScores:
        return _join(config, folds, attempt)

    return Stage("ensemble", {"folds": [fold.number for fold in folds]}, tuple(inputs), compute, EnsembleScores)


def _join(config: SegmentationConfig, folds: Sequence[Fold], attempt: Attempt) -> EnsembleScores:
    from flows.pipelines.segmentation.evaluation.report import write_ensemble_report

    _write_weights(attempt, folds)
    scores, choice = _postprocessed(config, folds, attempt)
    rows = [score.to_row() for found in scores.values() for score in found]
    column = [number for number, found in scores.items() for _ in found]
    write_table(attempt.uri("cases.parquet"), pa.Table.from_pylist(rows).append_column(FOLD, [column]))
    attempt.add(CASES, attempt.uri("cases.parquet"))
    summaries = summarise(rows)
    dice = {number: flat_metrics(summarise([score.to_row() for score in found])) for number, found in scores.items()}
    write_ensemble_report(attempt, config, folds, scores, summaries, choice)
    return EnsembleScores(
        metrics=flat_metrics(summaries),
        num_cases=len({row["case_id"] for row in rows}),
        folds=tuple(scores),
        step=sum(fold.training.figures.step for fold in folds),
        fold_dice=tuple(each.get("dice", float("nan")) for each in dice.values()),
        postprocessing=choice.kept,
    )


def _postprocessed(
    config: SegmentationConfig, folds: Sequence[Fold], attempt: Attempt
) -> tuple[dict[int, list[ClassScore]], Choice]:
    """Choose the postprocessing, and return the scores with it; processed label maps become files of the attempt."""
    labels = folds[0].shards.figures.labels
    scores = {fold.number: list(_held_out_scores(fold)) for fold in folds}
    held_out = {score.case_id: (fold, score.row) for fold in folds for score in scores[fold.number]}
    choice = choose_postprocessing([partial(fold.load_case, *where) for where, fold in _places(held_out)], labels)
    if not choice.kept:
        return scores, choice
    redone: dict[int, list[ClassScore]] = {fold.number: [] for fold in folds}
    for (case_id, row), fold in _places(held_out):
        case = fold.load_case(case_id, row)
        numbers = choice.kept.apply(case.prediction, case.spacing)
        with storage.local_copy_of(attempt.uri("predictions", f"{case_id}.nii.gz")) as path:
            write_nifti(path, labels.write_numbers(numbers), fold.affine(row))
        found = score_case(
            numbers, case.truth, labels.targets, labels.num_classes, case.spacing, config.evaluate.tolerance_mm
        )
        redone[fold.number] += [
            ClassScore(case_id=case_id, row=row, class_name=name, metrics=values) for name, values in found.items()
        ]
    return redone, choice


def _places(held_out: Mapping[str, tuple[Fold, int]]) -> Iterator[tuple[tuple[str, int], Fold]]:
    """Yield (case, row of its fold's index) and fold of every case, by name."""
    for case_id, (fold, row) in sorted(held_out.items(), key=lambda item: item[0]):
        yield (case_id, row), fold


def _held_out_scores(fold: Fold) -> Iterator[ClassScore]:
    for row in read_table(fold.evaluation.output(CASES)).to_pylist():
        yield ClassScore.of_row(row)


def _write_weights(attempt: Attempt, folds: Sequence[Fold]) -> None:
    """Write the members' weights into one file, as ``Ensemble`` names them."""
    from safetensors.torch import load, save

    tensors = {
        f"members.{place}.{name}": tensor
        for place, fold in enumerate(folds)
        for name, tensor in load(storage.read_bytes(fold.training.output("weights"))).items()
    }
    attempt.write("weights", "model.safetensors", save(tensors, metadata={"format": "pt"}))


def register_ensemble(
    config: SegmentationConfig, folds: Sequence[Fold], ensemble: Record[EnsembleScores]
) -> Stage[RegistrationFigures]:
    """Plan the registration of the members as one model."""
    from flows.pipelines.segmentation.champion import compare_rows
    from flows.pipelines.segmentation.register import build_candidate, write_model

    first = folds[0].shards
    digest = digest_of(sorted(evaluation_digest(config, fold.shards) for fold in folds))
    ranges = [fold.shards.figures.trained_range for fold in folds]
    bundle = build_bundle(config, first.figures).model_copy(
        update={
            "num_members": len(folds),
            "trained_range": _widest(ranges),
            "postprocessing": ensemble.figures.postprocessing,
        }
    )

    def compare(champion: Champion, metric: str) -> Compared:
        known = champion.find_evaluation(digest, config.storage_uri, EnsembleScores, stage="ensemble")
        if known is None:
            raise InputError(
                "it was not scored by the same folds; of all cases it has been trained on most, so its scores on them "
                "would say nothing"
            )
        return compare_rows(ensemble, known, metric, config.registry)

    records = [record for fold in folds for record in (fold.shards, fold.training, fold.evaluation)]
    candidate = build_candidate(
        config,
        first,
        ensemble,
        write_files=lambda folder: write_model(folder, config, bundle, ensemble.output("weights")),
        card=_describe(ensemble.figures),
        evaluation_data=digest,
        lineage=(*records, ensemble),
        run_key=ensemble.key,
        step=ensemble.figures.step,
        compare=compare,
    )
    return register_stage(config, candidate, (ensemble,))


def _describe(ensemble: EnsembleScores) -> str:
    members = ", ".join(
        f"{number}: {dice:.4f}" for number, dice in zip(ensemble.folds, ensemble.fold_dice, strict=True)
    )
    return (
        f"It averages the probabilities of {len(ensemble.folds)} networks, each trained without one fold. Its figures "
        f"are those of {ensemble.num_cases} cases, each segmented by the one network that was not trained on it (Dice "
        f"by fold: {members}); the average itself has no held-out cases."
    )


def _widest(ranges: Sequence[Any]) -> Any:
    """Join the ranges of the folds; None where one is unknown."""
    known = [each for each in ranges if each is not None]
    return known[0].widened(known[1:]) if len(known) == len(ranges) else None
