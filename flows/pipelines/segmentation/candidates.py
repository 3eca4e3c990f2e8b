"""Candidates: configurations that were trained on the same folds, of which the best is registered."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from data_pipelines.errors import ConfigError
from flows.pipelines.segmentation.config import SegmentationConfig
from flows.pipelines.segmentation.folds import Fold, find_done
from flows.pipelines.segmentation.mirroring import Variant, choose_variant, measure_variant
from flows.stages.pipeline import Records
from flows.stages.record import Record
from unet_models.metrics.summary import MEAN_CLASS, MetricSummary, summarise


@dataclass(frozen=True, slots=True)
class TrainedCandidate:
    """A configuration, its folds, and their scores."""

    config: SegmentationConfig
    folds: list[Fold]
    """With the chosen one of the variants."""
    variants: list[Variant]
    """Predictions of all held-out cases with and without test-time mirroring, as far as they were tried."""
    summary: MetricSummary
    """Mean Dice over the classes, over the held-out cases of all folds, with its interval."""

    @property
    def dice(self) -> float:
        """Mean Dice over all cases."""
        return self.summary.mean


@dataclass(frozen=True, slots=True)
class Comparison:
    """Candidates by name, and the name of the best."""

    candidates: Mapping[str, TrainedCandidate]
    name: str

    @property
    def config(self) -> SegmentationConfig:
        """Configuration of the best one."""
        return self.candidates[self.name].config

    @property
    def folds(self) -> list[Fold]:
        """Folds of the best one."""
        return self.candidates[self.name].folds

    @property
    def variants(self) -> list[Variant]:
        """Predictions of the best one with and without test-time mirroring."""
        return self.candidates[self.name].variants

    @property
    def records(self) -> tuple[Record[Any], ...]:
        """Records of all, which the choice depends on."""
        return tuple(record for each in self.candidates.values() for fold in each.folds for record in fold.records)


def compare_candidates(config: SegmentationConfig, done: Records) -> Comparison:
    """Compare the candidates by their Dice over the same cases; the first of equals is the best.

    Raises ConfigError where one was not scored on all of them.
    """
    configs = config.candidate_configs
    candidates = {name: _choose_mirroring(configs[name], folds) for name, folds in find_done(config, done).items()}
    _check_cases(candidates)
    name = max(candidates, key=lambda each: -math.inf if math.isnan(candidates[each].dice) else candidates[each].dice)
    return Comparison(candidates, name)


def _choose_mirroring(config: SegmentationConfig, folds: list[Fold]) -> TrainedCandidate:
    """Choose over the cases of all folds whether predictions are mirrored, where both were tried."""
    tried = [[fold.with_tta(each.tta) for fold in folds] for each in folds[0].evaluation.figures.variants]
    variants = [_join(each) for each in tried]
    chosen = tried[variants.index(choose_variant(variants))]
    return TrainedCandidate(config, chosen, variants, _summarise(chosen))


def _join(folds: list[Fold]) -> Variant:
    rows = [score.to_row() for fold in folds for score in fold.scores]
    return measure_variant(folds[0].tta, rows, [fold.variant.seconds for fold in folds])


def _check_cases(candidates: Mapping[str, TrainedCandidate]) -> None:
    cases = {name: {score.case_id for fold in each.folds for score in fold.scores} for name, each in candidates.items()}
    for name, found in cases.items():
        if lacking := sorted(set().union(*cases.values()) - found):
            raise ConfigError(
                f"candidates: {name} was not scored on {', '.join(lacking[:3])}{', ...' if len(lacking) > 3 else ''}, "
                "which others were: what one leaves out, all must; give them the same data.preprocess"
            )


def _summarise(folds: list[Fold]) -> MetricSummary:
    """Summarise the Dice of the held-out cases of all folds."""
    rows = [score.to_row() for fold in folds for score in fold.scores]
    return next(each for each in summarise(rows) if (each.metric, each.class_name) == ("dice", MEAN_CLASS))
