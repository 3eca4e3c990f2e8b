"""Pairs of candidates: the mean of their probabilities, scored on the cases that neither was trained on."""

from __future__ import annotations

import logging
from itertools import combinations

from data_pipelines import storage
from data_pipelines.specs import Spec
from flows.pipelines.segmentation.bundle import Bundle
from flows.pipelines.segmentation.candidates import RankedCandidates, TrainedCandidate, summarise_folds
from flows.pipelines.segmentation.evaluate import build_bundle
from flows.pipelines.segmentation.evaluation.held_out import score_cases
from flows.pipelines.segmentation.evaluation.label_maps import FOLDER, LIST, MAPS, maps_exist
from flows.pipelines.segmentation.folds import Fold
from flows.pipelines.segmentation.mirroring import MIN_DICE_GAIN, Variant, measure_variant
from flows.stages.attempt import Attempt
from flows.stages.record import Figures, Record
from flows.stages.stage import Stage

logger = logging.getLogger(__name__)


class PairRun(Spec):
    """Predictions of one fold's held-out cases by a pair."""

    names: tuple[str, str]
    """Candidates, in their order."""
    fold: int
    variant: Variant


class PairFigures(Figures):
    """Figures of the stage ``pair``."""

    runs: tuple[PairRun, ...]


def pair_name(names: tuple[str, str]) -> str:
    """Name a pair of candidates."""
    return "+".join(names)


def pair_stage(comparison: RankedCandidates) -> Stage[PairFigures]:
    """Plan the stage: every two candidates, each as it predicts best, on the held-out cases of each fold."""
    identity = {"tta": {name: each.tta for name, each in comparison.candidates.items()}}

    def compute(attempt: Attempt) -> PairFigures:
        runs = [
            _score(attempt, comparison, names, place, (f"pair{number}", f"fold{fold.number}"))
            for number, names in enumerate(combinations(comparison.candidates, 2))
            for place, fold in enumerate(comparison.folds)
        ]
        return PairFigures(runs=tuple(runs))

    return Stage("pair", identity, comparison.records, compute, PairFigures, maps_exist, uses_gpu=True)


def pair_bundle(first: TrainedCandidate, second: TrainedCandidate, place: int) -> Bundle:
    """Build the bundle of two candidates' networks of one fold."""
    bundle, partner = (
        build_bundle(each.config, each.folds[place].shards.figures).with_choices(tta=each.tta)
        for each in (first, second)
    )
    return bundle.model_copy(update={"partner": partner})


def _score(
    attempt: Attempt, comparison: RankedCandidates, names: tuple[str, str], place: int, folder: tuple[str, ...]
) -> PairRun:
    """Predict and score the held-out cases of a fold; scores, voxels and label maps become outputs of the attempt."""
    from safetensors.torch import load, save

    from flows.pipelines.segmentation.averaging import join_weights
    from flows.pipelines.segmentation.calibration import join_voxels

    logger.info("pair: %s, fold %d", pair_name(names), comparison.folds[place].number)
    first, second = (comparison.candidates[name] for name in names)
    folds = first.folds[place], second.folds[place]
    own, partner = (load(storage.read_bytes(fold.training.output("weights"))) for fold in folds)
    weights = join_weights(own, partner=partner)
    storage.write_bytes(attempt.uri(*folder, "weights.safetensors"), save(weights))
    evaluate = first.config.evaluate.model_copy(update={"exit_thresholds": ()})  # they are of one network
    scored = score_cases(
        first.config.model_copy(update={"evaluate": evaluate}),
        folds[0].shards,
        attempt,
        pair_bundle(first, second, place),
        attempt.uri(*folder, "weights.safetensors"),
        partner=folds[1].shards,
        folder=folder,
        is_own=True,
    )
    storage.delete(attempt.uri(*folder, "weights.safetensors"))
    attempt.add(_output("cases", names, folds[0].number), attempt.uri(*folder, "cases.parquet"))
    attempt.add(_output(MAPS, names, folds[0].number), attempt.uri(*folder, LIST))
    voxels = join_voxels(scored.voxels)
    attempt.write(_output("voxels", names, folds[0].number), "/".join([*folder, "voxels.safetensors"]), voxels)
    rows = [score.to_row() for score in scored.scores]
    predictions = storage.join(attempt.name, *folder, FOLDER)
    variant = measure_variant(first.tta or second.tta, rows, scored.seconds, predictions)
    return PairRun(names=names, fold=folds[0].number, variant=variant)


def _output(what: str, names: tuple[str, str], fold: int) -> str:
    return f"{what}_{pair_name(names)}_fold{fold}"


class PairFold(Fold):
    """A fold of two candidates, whose held-out cases the mean of both predicts."""

    def __init__(self, first: Fold, record: Record[PairFigures], run: PairRun) -> None:
        """Gather what the stage ``pair`` left of one fold."""
        super().__init__(first.number, *first.origin, first.tta, first.earlier)
        self.record, self.run = record, run

    @property
    def variant(self) -> Variant:
        """Predictions of its held-out cases."""
        return self.run.variant

    @property
    def predictions_uri(self) -> str:
        """Folder of the label maps of its held-out cases."""
        return storage.join(self.record.uri, self.run.variant.predictions)

    @property
    def _scores_uri(self) -> str:
        return self.record.output(_output("cases", self.run.names, self.number))

    @property
    def _voxels_uri(self) -> str:
        return self.record.output(_output("voxels", self.run.names, self.number))


def with_pairs(comparison: RankedCandidates, record: Record[PairFigures]) -> RankedCandidates:
    """Return the comparison with the pairs in it; the best of them is chosen where it gains ``MIN_DICE_GAIN``."""
    found = {}
    for names in dict.fromkeys(run.names for run in record.figures.runs):
        first, second = (comparison.candidates[name] for name in names)
        runs = {run.fold: run for run in record.figures.runs if run.names == names}
        folds = [PairFold(fold, record, runs[fold.number]) for fold in first.folds]
        found[pair_name(names)] = TrainedCandidate(first.config, folds, [], summarise_folds(folds), second)
    best = max(found, key=lambda name: found[name].rank)
    gains = found[best].rank >= comparison.candidates[comparison.name].rank + MIN_DICE_GAIN
    return RankedCandidates({**comparison.candidates, **found}, best if gains else comparison.name, (record,))
