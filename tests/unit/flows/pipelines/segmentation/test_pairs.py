"""Pairs of candidates: which is chosen."""

from __future__ import annotations

import math
from typing import Any, cast

import pytest

from flows.pipelines.segmentation import pairs
from flows.pipelines.segmentation.candidates import RankedCandidates, TrainedCandidate
from flows.pipelines.segmentation.config import SegmentationConfig
from flows.pipelines.segmentation.ensemble import lineage_of
from flows.pipelines.segmentation.folds import Fold
from flows.pipelines.segmentation.mirroring import Variant
from flows.pipelines.segmentation.pairs import PairFigures, PairRun, with_pairs
from tests.support.records import finished
from unet_models.metrics.summary import MEAN_CLASS, MetricSummary

DICE = {"base": 0.8, "slices": 0.7, "low": 0.75}


class _Fold:
    """A fold that was trained somewhere else."""

    number, origin, tta = 0, (), False


class _Pair:
    """A fold of two candidates, which knows its Dice."""

    def __init__(self, first: Fold, record: object, run: PairRun) -> None:
        self.dice = run.variant.dice


def summary(dice: float) -> MetricSummary:
    return MetricSummary("dice", MEAN_CLASS, dice, dice, dice, 4)


def compared(monkeypatch: pytest.MonkeyPatch, *dice: float) -> RankedCandidates:
    """Three candidates, and the three pairs of them with these Dice."""
    monkeypatch.setattr(pairs, "PairFold", _Pair)
    monkeypatch.setattr(pairs, "summarise_folds", lambda folds: summary(folds[0].dice))
    alone = {
        name: TrainedCandidate(SegmentationConfig(), cast("Any", [_Fold()]), [], summary(value))
        for name, value in DICE.items()
    }
    names = [("base", "slices"), ("base", "low"), ("slices", "low")]
    runs = [
        PairRun(names=each, fold=0, variant=Variant(tta=False, dice=value, seconds=1))
        for each, value in zip(names, dice, strict=True)
    ]
    return with_pairs(RankedCandidates(alone, "base"), finished("pair", PairFigures(runs=tuple(runs))))


@pytest.mark.parametrize(
    ("dice", "chosen"),
    [
        ((0.79, 0.8011, 0.78), "base+low"),
        ((0.79, 0.8009, 0.78), "base"),
        ((math.nan, math.nan, 0.9), "slices+low"),
        ((math.nan,) * 3, "base"),
    ],
    ids=["the best pair gains", "too little for the time of both", "of neither the best", "nothing to score"],
)
def test_the_best_pair_is_chosen_where_it_gains(
    monkeypatch: pytest.MonkeyPatch, dice: tuple[float, ...], chosen: str
) -> None:
    found = compared(monkeypatch, *dice)
    assert found.name == chosen
    assert list(found.candidates) == ["base", "slices", "low", "base+slices", "base+low", "slices+low"]
    assert list(found.networks(found.best)) == chosen.split("+")


def test_a_model_has_the_networks_that_it_averages_and_those_before_them() -> None:
    configs = {"low": SegmentationConfig(), "base": SegmentationConfig(), "cascade": SegmentationConfig(previous="low")}
    alone = {
        name: TrainedCandidate(config, cast("Any", [_Fold()]), [], summary(0.8)) for name, config in configs.items()
    }
    pair = TrainedCandidate(alone["base"].config, alone["base"].folds, [], summary(0.9), alone["cascade"])
    found = RankedCandidates(alone | {"base+cascade": pair}, "base+cascade")
    assert list(found.within(pair)) == ["partner"]
    assert list(found.within(alone["cascade"])) == ["previous"]
    assert list(found.networks(pair)) == ["base", "cascade", "low"]
    assert list(found.networks(alone["cascade"])) == ["cascade", "low"]
    assert list(found.networks(alone["low"])) == ["low"]


class _Done(Fold):
    """A fold whose records are names."""

    def __init__(self, name: str, *, is_cascade: bool = False) -> None:
        self.origin = ({"shard.0": cast("Any", f"{name} shard")}, 0)
        self.shards = cast("Any", f"{name} cascade") if is_cascade else self.origin[0]["shard.0"]
        self.training, self.evaluation = cast("Any", f"{name} train"), cast("Any", f"{name} evaluate")


def test_the_lineage_of_a_pair_holds_all_that_led_to_it() -> None:
    """Its own predictions, and of a cascade the shards that its samples were made from."""
    folds = {"base": _Done("base"), "cascade": _Done("cascade", is_cascade=True), "low": _Done("low")}
    alone = {
        name: TrainedCandidate(
            SegmentationConfig(previous="low" if name == "cascade" else None), [fold], [], summary(0.8)
        )
        for name, fold in folds.items()
    }
    pair = TrainedCandidate(alone["base"].config, alone["base"].folds, [], summary(0.9), alone["cascade"])
    names = {"base": ["shard", "train", "evaluate"], "cascade": ["shard", "cascade", "train", "evaluate"]}
    names["low"] = names["base"]
    expected = [f"{candidate} {stage}" for candidate, stages in names.items() for stage in stages]
    compared = alone | {"base+cascade": pair}
    more = (cast("Any", "pair"),)
    assert list(lineage_of(RankedCandidates(compared, "base+cascade", more))) == [*expected, "pair"]
    assert list(lineage_of(RankedCandidates(compared, "low", more))) == ["low shard", "low train", "low evaluate"]
