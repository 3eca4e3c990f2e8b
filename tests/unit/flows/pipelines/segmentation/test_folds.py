"""Folds and candidates are checked before any is trained."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load, save

from data_pipelines import storage
from data_pipelines.errors import ConfigError
from data_pipelines.volumes.sources.find import find_cases
from flows.pipelines.catalog import PIPELINES
from flows.pipelines.segmentation.candidates import summarise_folds
from flows.pipelines.segmentation.config import SegmentationConfig
from flows.pipelines.segmentation.evaluate import EnsembleScores
from flows.pipelines.segmentation.folds import Fold, split_runs
from flows.stages.record import read_record, write_record
from tests.support.records import finished
from unet_models.specs.networks import UNetSpec


def config_of(fold: Any) -> SegmentationConfig:
    data = {"layout": "phantoms", "num_phantoms": 4, "num_folds": 3, "fold": fold}
    return SegmentationConfig.model_validate({"data": data})


def test_folds_that_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "cache_folder", lambda: tmp_path)
    assert [each.data.fold for each in split_runs(config_of("all")).values()] == [0, 1, 2]
    assert [each.data.fold for each in split_runs(config_of([2, 0])).values()] == [2, 0]
    with pytest.raises(ConfigError, match=r"data.fold: \[5, 9\] out of range; there are folds 0..2"):
        split_runs(config_of([9, 0, 5]))


def candidates(changes: dict[str, Any]) -> SegmentationConfig:
    data = {"layout": "phantoms", "num_phantoms": 4, "fold": 1, "preprocess": {"normalise": "none"}}
    train = {"patch_size": [16, 16, 16], "model": {"channels": [4, 8], "norm": "batch"}}
    return SegmentationConfig.model_validate({"data": data, "train": train, "candidates": {"other": changes}})


def test_a_candidate_changes_what_it_names_alone() -> None:
    config = candidates({"train": {"model": {"channels": [4, 8, 16]}}, "data": {"preprocess": {"spacing": [2, 2, 2]}}})
    found = split_runs(config)
    assert list(found) == ["base, fold 1", "other, fold 1"]
    base, other = found.values()
    assert base == config.model_copy(update={"candidates": {}})
    assert other.train.model.channels == (4, 8, 16)
    assert (other.train.model.norm, other.train.patch_size) == ("batch", (16, 16, 16))
    assert (other.data.preprocess.spacing, other.data.preprocess.normalise) == ((2.0, 2.0, 2.0), "none")


def test_a_preset_of_a_candidate_is_not_beaten_by_the_base() -> None:
    other = candidates({"train": {"model": {"preset": "attention_unet", "norm": "group"}}}).candidate_configs["other"]
    assert other.train.model == UNetSpec.model_validate({"preset": "attention_unet", "norm": "group"})
    assert other.train.patch_size == (16, 16, 16)


def test_mappings_of_a_candidate_replace_those_of_the_base() -> None:
    train = {"loss": {"terms": {"cross_entropy": 1, "dice": 1}, "batch_dice": True}, "class_weights": {"organ": 2}}
    changes = {"train": {"loss": {"terms": {"focal": 1}}, "class_weights": {"lesion": 3}}}
    config = SegmentationConfig.model_validate({"train": train, "candidates": {"other": changes}})
    other = config.candidate_configs["other"].train
    assert other.loss.terms == {"focal": 1}
    assert other.loss.batch_dice
    assert other.class_weights == {"lesion": 3}


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"train": {"model": {"fusion": {}}}}, r"candidates\.\w+: what becomes one model has no train.model.fusion"),
        ({"data": {"root": "elsewhere"}}, r"other: it may change train and data.preprocess, .* not data.root"),
        ({"evaluate": {"overlap": 0.1}}, r"not evaluate"),
        ({"train": {"patch_size": [16, 16]}}, r"candidates.other: .*train.patch_size has 2 numbers"),
        ({"train": {"model": {"chanels": [4]}}}, r"candidates.other.train.model.chanels"),
    ],
)
def test_candidates_that_cannot_be_compared_are_refused(changes: dict[str, Any], told: str) -> None:
    with pytest.raises(ValidationError, match=told):
        candidates(changes)


def test_names_of_pairs_are_no_names_of_candidates() -> None:
    with pytest.raises(ValidationError, match=r"'base\+low' is no name of a candidate: A\+B is the pair of A and B"):
        SegmentationConfig.model_validate({"candidates": {"base+low": {}}})


def cascade(**settings: Any) -> SegmentationConfig:
    data = {"layout": "phantoms", "num_phantoms": 4, "num_folds": 2, "fold": "all"}
    low = {"data": {"preprocess": {"spacing": [4, 4, 4]}}}
    given = {"data": data, "candidates": {"cascade": {"previous": "low"}, "low": low}}
    return SegmentationConfig.model_validate(given | settings)


def test_runs_of_a_cascade_come_after_those_that_they_wait_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "cache_folder", lambda: tmp_path)
    pipeline = PIPELINES["segmentation"]
    chains = {title: [step.name for step in steps] for title, steps in pipeline.chains(cascade()).items()}
    assert list(chains) == [f"{name}, fold {fold}" for name in ("base", "low", "cascade") for fold in (0, 1)]
    assert chains["low, fold 1"] == ["shard", "train", "evaluate"]
    assert chains["cascade, fold 1"] == ["shard", "cascade", "train", "evaluate"]
    until = {title: steps[-1].name for title, steps in pipeline.chains(cascade(), "cascade").items()}
    waited = {f"low, fold {fold}": "evaluate" for fold in (0, 1)}
    assert until == waited | {f"cascade, fold {fold}": "cascade" for fold in (0, 1)}
    shards = pipeline.chains(cascade(), "shard")
    assert {title: step.name for title, (step,) in shards.items()} == dict.fromkeys(chains, "shard")
    with pytest.raises(ConfigError, match="has no stage search"):
        pipeline.chains(cascade(), "search")
    run = split_runs(cascade())["cascade, fold 1"]
    again = SegmentationConfig.model_validate(run.model_dump(mode="json"))  # as a job is given it
    assert again == run
    assert again.previous_settings is not None
    previous = SegmentationConfig.model_validate(again.previous_settings)
    assert previous == split_runs(cascade())["low, fold 0"].model_copy(update={"data": previous.data})
    assert previous.data.fold == "all"


def test_a_cascade_of_cases_that_are_never_held_out_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before anything is trained; drawn splits hold out every case."""
    monkeypatch.setattr(storage, "cache_folder", lambda: tmp_path)
    names = [case.case_id for case in find_cases(cascade().data, tmp_path / "generated").cases]
    never, *others = names
    file = tmp_path / "splits.json"
    folds = [{"train": [each for each in names if each != out], "val": [out]} for out in others]
    file.write_text(json.dumps(folds))
    data = cascade().data.model_dump() | {"splits": str(file)}
    told = rf"splits\.json: no fold holds out {never}: all networks of low are trained on them"
    with pytest.raises(ConfigError, match=told):
        split_runs(cascade(data=data))
    file.write_text(json.dumps([*folds, {"train": others, "val": [never]}]))
    assert len(split_runs(cascade(data=data))) == 3 * len(names)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"candidates": {"a": {"previous": "b"}}}, "candidates.a.previous: 'b' is no candidate .* there are base"),
        ({"candidates": {"a": {"previous": "base"}, "b": {"previous": "a"}}}, "'a' is no candidate without a previous"),
        ({"candidates": {"a": {"previous": "base"}}, "previous": "a"}, "belongs to one of the candidates"),
        ({"data": {"layout": "phantoms", "fold": 1}}, "set data.fold to all"),
    ],
)
def test_cascades_without_a_previous_network_are_refused(settings: dict[str, Any], told: str) -> None:
    with pytest.raises(ValidationError, match=told):
        cascade(**settings)


def test_a_previous_candidate_must_be_there_and_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "cache_folder", lambda: tmp_path)
    steps = {step.name: step for step in PIPELINES["segmentation"].steps}
    alone = cascade(candidates={}, previous="low", storage=str(tmp_path))
    with pytest.raises(ConfigError, match="low is no candidate of this configuration"):
        steps["cascade"].plan(alone, {"shard": None})  # type: ignore[dict-item]
    run = split_runs(cascade(storage=str(tmp_path)))["cascade, fold 1"]
    with pytest.raises(ConfigError, match="previous: shard of low, fold 0, is not done"):
        steps["cascade"].plan(run, {"shard": None})  # type: ignore[dict-item]


class _Scored(Fold):
    """A fold whose scores lie in no file."""

    def __init__(self, *cases: str, earlier: Sequence[Fold] = ()) -> None:
        self.cases, self.earlier = cases, earlier

    def _read_scores(self) -> list[dict[str, Any]]:
        return [
            {"case_id": case, "row": row, "class_name": "organ", "dice": 0.5} for row, case in enumerate(self.cases)
        ]


def test_a_case_that_two_folds_hold_out_counts_once() -> None:
    """Of few subjects, one may be drawn for a fold that would be empty, and files may name a case in two folds."""
    first = _Scored("a", "b")
    second = _Scored("b", "c", earlier=(first,))
    third = _Scored("a", "c", earlier=(first, second))
    assert [[score.case_id for score in fold.scores] for fold in (first, second, third)] == [["a", "b"], ["c"], []]
    assert sorted(third.held_out) == ["a", "c"]
    assert summarise_folds([first, second, third]).num_cases == 3


def test_voxels_of_a_case_that_two_folds_hold_out_count_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the second fold the case in row 0 is scored by the first, and so is what is drawn of it."""
    values = {"logits": torch.tensor([[1.0], [2.0], [3.0]]), "rows": torch.tensor([0, 1, 1])}
    (tmp_path / "voxels").write_bytes(save(values))
    monkeypatch.setattr(_Scored, "_voxels_uri", str(tmp_path / "voxels"))
    second = _Scored("b", "c", earlier=(_Scored("a", "b"),))
    assert load(second.read_voxels())["logits"].flatten().tolist() == [2.0, 3.0]


def test_the_scores_of_folds_without_a_case_of_their_own_are_read_again(tmp_path: Path) -> None:
    """Where all that a fold holds out is scored in earlier ones, its Dice is undefined."""
    dice, candidate_dice = (0.5, math.nan), {"base": math.nan}
    figures = EnsembleScores(
        metrics={}, num_cases=1, folds=(0, 1), step=2, fold_dice=dice, candidate_dice=candidate_dice, tta=False
    )
    write_record(finished("ensemble", figures, uri=str(tmp_path)))
    record = read_record(str(tmp_path), EnsembleScores)
    assert record is not None
    np.testing.assert_equal(record.figures.fold_dice, dice)
    np.testing.assert_equal(record.figures.candidate_dice, candidate_dice)
