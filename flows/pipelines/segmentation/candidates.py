"""Candidates: configurations that were trained on the same folds, of which the best is registered."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from data_pipelines.errors import ConfigError
from flows.pipelines.segmentation.config import SegmentationConfig
from flows.pipelines.segmentation.folds import Fold, find_done, list_cases
from flows.pipelines.segmentation.mirroring import Variant, choose_variant, measure_variant
from flows.stages.pipeline import Records
from flows.stages.record import Record
from unet_models.metrics.summary import MEAN_CLASS, MetricSummary, summarise


@dataclass(frozen=True, slots=True)
class TrainedCandidate:
    """A configuration, its folds, and their scores."""

    config: SegmentationConfig
    folds: Sequence[Fold]
    """With the chosen one of the variants."""
    variants: list[Variant]
    """Predictions of all held-out cases with and without test-time mirroring, as far as they were tried."""
    summary: MetricSummary
    """Mean Dice over the classes, over the held-out cases of all folds, with its interval."""
    partner: TrainedCandidate | None = None
    """Second candidate, where this is a pair whose first has the configuration."""

    @property
    def dice(self) -> float:
        """Mean Dice over all cases."""
        return self.summary.mean

    @property
    def rank(self) -> float:
        """Mean Dice, by which candidates are ordered; one without any is the last."""
        return -math.inf if math.isnan(self.dice) else self.dice

    @property
    def tta(self) -> bool:
        """Test-time mirroring of its predictions."""
        return self.folds[0].tta


@dataclass(frozen=True, slots=True)
class RankedCandidates:
    """Candidates by name, and the name of the best."""

    candidates: Mapping[str, TrainedCandidate]
    name: str
    more: tuple[Record[Any], ...] = ()
    """Records of what was compared beyond the candidates themselves."""

    @property
    def best(self) -> TrainedCandidate:
        """The best one."""
        return self.candidates[self.name]

    def within(self, candidate: TrainedCandidate) -> dict[str, TrainedCandidate]:
        """Return the candidates that one predicts with beside itself, by their part in its model (``Bundle``)."""
        previous = candidate.config.previous
        parts = {"partner": candidate.partner, "previous": self.candidates[previous] if previous else None}
        return {name: each for name, each in parts.items() if each is not None}

    def networks(self, candidate: TrainedCandidate) -> dict[str, TrainedCandidate]:
        """Return the candidates by name whose networks a model has: itself or both of a pair, and previous ones."""
        alone = {name: each for name, each in self.candidates.items() if each.partner is None}
        found = {name: each for name, each in alone.items() if each.config is candidate.config}
        for each in self.within(candidate).values():
            found |= self.networks(each)
        return found

    @property
    def config(self) -> SegmentationConfig:
        """Configuration of the best one."""
        return self.best.config

    @property
    def folds(self) -> Sequence[Fold]:
        """Folds of the best one."""
        return self.best.folds

    @property
    def variants(self) -> list[Variant]:
        """Predictions of the best one with and without test-time mirroring."""
        return self.best.variants

    @property
    def records(self) -> tuple[Record[Any], ...]:
        """Records of all, which the choice depends on."""
        alone = [each for each in self.candidates.values() if each.partner is None]
        return (*(record for each in alone for fold in each.folds for record in fold.records), *self.more)


def compare_candidates(config: SegmentationConfig, done: Records) -> RankedCandidates:
    """Compare the candidates by their Dice over the same cases; the first of equals is the best.

    Raises ConfigError where one was not scored on all of them.
    """
    configs = config.candidate_configs
    candidates = {name: choose_mirroring(configs[name], folds) for name, folds in find_done(config, done).items()}
    _check_cases(candidates)
    return RankedCandidates(candidates, max(candidates, key=lambda name: candidates[name].rank))


def choose_mirroring(config: SegmentationConfig, folds: list[Fold]) -> TrainedCandidate:
    """Choose over the cases of all folds whether predictions are mirrored, where both were tried."""
    tried = [[fold.with_tta(each.tta) for fold in folds] for each in folds[0].evaluation.figures.variants]
    variants = [_join(each) for each in tried]
    chosen = tried[variants.index(choose_variant(variants))]
    return TrainedCandidate(config, chosen, variants, summarise_folds(chosen))


def _join(folds: list[Fold]) -> Variant:
    rows = [score.to_row() for fold in folds for score in fold.scores]
    return measure_variant(folds[0].tta, rows, [fold.variant.seconds for fold in folds])


def _check_cases(candidates: Mapping[str, TrainedCandidate]) -> None:
    cases = {name: {score.case_id for fold in each.folds for score in fold.scores} for name, each in candidates.items()}
    for name, found in cases.items():
        if lacking := sorted(set().union(*cases.values()) - found):
            raise ConfigError(
                f"candidates: {name} was not scored on {list_cases(lacking)}, which others were: all candidates "
                "must use the same cases; give them the same data.preprocess"
            )


def summarise_folds(folds: Sequence[Fold]) -> MetricSummary:
    """Summarise the Dice of the held-out cases of all folds."""
    rows = [score.to_row() for fold in folds for score in fold.scores]
    return next(each for each in summarise(rows) if (each.metric, each.class_name) == ("dice", MEAN_CLASS))
