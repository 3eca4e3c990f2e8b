"""One model of several folds, which averages theirs; each case is scored by the one that has not seen it."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from data_pipelines import storage
from data_pipelines.digests import digest_of
from data_pipelines.errors import InputError
from data_pipelines.shards.index import write_table
from flows.pipelines.segmentation.bundle import Bundle
from flows.pipelines.segmentation.candidates import RankedCandidates, TrainedCandidate
from flows.pipelines.segmentation.config import SegmentationConfig
from flows.pipelines.segmentation.evaluate import CASES, EnsembleScores, build_bundle, evaluation_digest, flat_metrics
from flows.pipelines.segmentation.evaluation.label_maps import FOLDER, write_map
from flows.pipelines.segmentation.evaluation.scoring import ClassScore
from flows.pipelines.segmentation.folds import Fold
from flows.pipelines.segmentation.postprocess import Choice, choose_postprocessing
from flows.registry.champion import Champion, Compared
from flows.registry.register import RegistrationFigures, register_stage
from flows.stages.attempt import Attempt
from flows.stages.record import Record
from flows.stages.stage import Stage
from unet_models.metrics.summary import score_case, summarise

if TYPE_CHECKING:
    from torch import Tensor

logger = logging.getLogger(__name__)

FOLD = "fold"
"""Column of the scores: fold in which the case was held out."""


def ensemble_stage(config: SegmentationConfig, comparison: RankedCandidates) -> Stage[EnsembleScores]:
    """Plan the stage: trained members of the best candidate to one model, and their scores to those of all cases."""
    identity: dict[str, Any] = {"folds": [fold.number for fold in comparison.folds]}
    if config.candidates:
        identity["candidate"] = comparison.name

    def compute(attempt: Attempt) -> EnsembleScores:
        return _join(config, comparison, attempt)

    return Stage("ensemble", identity, comparison.records, compute, EnsembleScores)


def _join(config: SegmentationConfig, comparison: RankedCandidates, attempt: Attempt) -> EnsembleScores:
    from flows.pipelines.segmentation.calibration import calibrate, read_voxels
    from flows.pipelines.segmentation.evaluation.report import write_ensemble_report

    folds = comparison.folds
    _write_weights(attempt, comparison)
    scores, choice = _postprocessed(config, folds, attempt)
    rows = [score.to_row() for found in scores.values() for score in found]
    num_cases = len({row["case_id"] for row in rows})
    if again := sum(len(fold.held_out) for fold in folds) - num_cases:
        logger.warning("%d cases are held out in two folds: each is scored by the network of the first one", again)
    column = [number for number, found in scores.items() for _ in found]
    write_table(attempt.uri("cases.parquet"), pa.Table.from_pylist(rows).append_column(FOLD, [column]))
    attempt.add(CASES, attempt.uri("cases.parquet"))
    summaries = summarise(rows)
    dice = {number: flat_metrics(summarise([score.to_row() for score in found])) for number, found in scores.items()}
    calibration = calibrate(read_voxels([fold.read_voxels() for fold in folds]), folds[0].shards.figures.labels)
    fold_dice = {number: each.get("dice", math.nan) for number, each in dice.items()}
    write_ensemble_report(attempt, config, comparison, scores, summaries, choice, calibration, fold_dice)
    return EnsembleScores(
        metrics=flat_metrics(summaries) | (calibration.metrics if calibration else {}),
        num_cases=num_cases,
        folds=tuple(scores),
        step=sum(fold.training.figures.step for fold in _all_folds(comparison)),
        fold_dice=tuple(fold_dice.values()),
        postprocessing=choice.kept,
        tta=folds[0].tta,
        temperatures=calibration.temperatures if calibration else (),
        candidate=comparison.name,
        candidate_dice={name: each.dice for name, each in comparison.candidates.items()},
    )


def _all_folds(comparison: RankedCandidates) -> list[Fold]:
    """List the folds of every network that the best candidate predicts with."""
    return [fold for each in comparison.networks(comparison.best).values() for fold in each.folds]


def lineage_of(comparison: RankedCandidates) -> tuple[Record[Any], ...]:
    """List the records of all that led to the best candidate."""
    compared = comparison.more if comparison.best.partner is not None else ()  # of a pair: its own predictions
    return (*(record for fold in _all_folds(comparison) for record in fold.lineage), *compared)


def _postprocessed(
    config: SegmentationConfig, folds: Sequence[Fold], attempt: Attempt
) -> tuple[dict[int, list[ClassScore]], Choice]:
    """Choose the postprocessing, and return the scores with it; processed label maps become files of the attempt."""
    labels = folds[0].shards.figures.labels
    scores = {fold.number: fold.scores for fold in folds}
    held_out = {score.case_id: (fold, score.row) for fold in folds for score in scores[fold.number]}
    choice = choose_postprocessing([partial(fold.load_case, *where) for where, fold in _places(held_out)], labels)
    if not choice.kept:
        return scores, choice
    redone: dict[int, list[ClassScore]] = {fold.number: [] for fold in folds}
    for (case_id, row), fold in _places(held_out):
        case = fold.load_case(case_id, row)
        numbers = choice.kept.apply(case.prediction, case.spacing)
        write_map(attempt.uri(FOLDER), case_id, numbers, labels, fold.stored(row))
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


def _write_weights(attempt: Attempt, comparison: RankedCandidates) -> None:
    """Write the weights of all networks into one file, those of models within the model as ``join_weights`` does."""
    from safetensors.torch import save

    tensors = _weights_of(comparison, comparison.best)
    attempt.write("weights", "model.safetensors", save(tensors, metadata={"format": "pt"}))


def _weights_of(comparison: RankedCandidates, candidate: TrainedCandidate) -> dict[str, Tensor]:
    from flows.pipelines.segmentation.averaging import join_weights

    own = _member_weights(candidate.folds)
    parts = {name: _weights_of(comparison, each) for name, each in comparison.within(candidate).items()}
    return join_weights(own, **parts)


def _bundle_of(comparison: RankedCandidates, candidate: TrainedCandidate) -> Bundle:
    """Build the bundle of a candidate's members, and of the models within it."""
    bundle = build_bundle(candidate.config, candidate.folds[0].shards.figures).with_choices(tta=candidate.tta)
    parts = {name: _bundle_of(comparison, each) for name, each in comparison.within(candidate).items()}
    return bundle.model_copy(update={"num_members": len(candidate.folds), **parts})


def _member_weights(folds: Sequence[Fold]) -> dict[str, Tensor]:
    """Read the members' weights, as ``Ensemble`` names them; of one alone as the network does."""
    from safetensors.torch import load

    found = [load(storage.read_bytes(fold.training.output("weights"))) for fold in folds]
    if len(found) == 1:
        return found[0]
    return {f"members.{place}.{name}": tensor for place, each in enumerate(found) for name, tensor in each.items()}


def register_ensemble(comparison: RankedCandidates, ensemble: Record[EnsembleScores]) -> Stage[RegistrationFigures]:
    """Plan the registration of the best candidate's members as one model."""
    from flows.pipelines.segmentation.champion import compare_rows, compare_with_champion
    from flows.pipelines.segmentation.register import build_candidate, write_model

    config, folds = comparison.config, comparison.folds
    first = folds[0].shards
    digests = sorted(evaluation_digest(config, fold.shards) for fold in folds)
    digest = digest_of(digests) if len(digests) > 1 else digests[0]
    ranges = [fold.shards.figures.trained_range for fold in folds]
    figures = ensemble.figures
    members = {"trained_range": _widest(ranges), "postprocessing": figures.postprocessing}
    bundle = _bundle_of(comparison, comparison.best)
    bundle = bundle.with_choices(tta=figures.tta, temperatures=figures.temperatures).model_copy(update=members)

    def compare(champion: Champion, metric: str) -> Compared:
        if len(folds) == 1:
            return compare_with_champion(config, first, ensemble, champion, metric)
        known = champion.find_evaluation(digest, config.storage_uri, EnsembleScores, stage="ensemble")
        if known is None:
            raise InputError(
                "it was not scored by the same folds of the same samples (their preprocessing included); of all cases "
                "it has been trained on most, so its scores on them would say nothing"
            )
        return compare_rows(ensemble, known, metric, config.registry)

    candidate = build_candidate(
        config,
        first,
        ensemble,
        write_files=lambda folder: write_model(folder, config, bundle, ensemble.output("weights")),
        card=_describe(ensemble.figures),
        evaluation_data=digest,
        lineage=(*lineage_of(comparison), ensemble),
        run_key=ensemble.key,
        step=ensemble.figures.step,
        compare=compare,
    )
    return register_stage(config, candidate, (ensemble,))


def _describe(ensemble: EnsembleScores) -> str:
    chosen = ""
    if len(ensemble.candidate_dice) > 1:
        dice = ", ".join(f"{name} {value:.4f}" for name, value in ensemble.candidate_dice.items())
        chosen = f"Of the configurations that were compared (Dice: {dice}) it is {ensemble.candidate}. "
    if len(ensemble.folds) == 1:
        return f"{chosen}Trained for {ensemble.step} steps, scored on {ensemble.num_cases} held-out cases."
    members = ", ".join(
        f"{number}: {dice:.4f}" for number, dice in zip(ensemble.folds, ensemble.fold_dice, strict=True)
    )
    return (
        f"{chosen}It averages the probabilities of {len(ensemble.folds)} networks, each trained without one "
        f"fold. Its figures are those of {ensemble.num_cases} cases, each segmented by the one network that was not "
        f"trained on it (Dice by fold: {members}); the average itself has no held-out cases."
    )


def _widest(ranges: Sequence[Any]) -> Any:
    """Join the ranges of the folds; None where one is unknown."""
    known = [each for each in ranges if each is not None]
    return known[0].widened(known[1:]) if len(known) == len(ranges) else None
