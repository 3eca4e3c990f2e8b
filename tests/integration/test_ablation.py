"""Variants of a real pipeline as trials of Ray Tune, with the number of steps that fits into a time."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from data_pipelines import storage
from flows.ablation.budget import fit_within
from flows.ablation.run import find_ablation, run_ablation
from flows.ablation.summary import summarise_runs
from flows.pipelines.segmentation.config import SegmentationConfig
from unet_models.specs.segmentation import TrainSpec

SECONDS = 600.0


def ablated(folder: Path) -> SegmentationConfig:
    values: dict[str, Any] = {
        "storage": str(folder),
        "data": {"layout": "phantoms", "num_phantoms": 8, "split_seed": 1},
        "train": {"patch_size": [16, 16, 16], "validate_cases": 1, "model": {"channels": [4, 8]}},
        "evaluate": {"tta": False},
        "compute": {"num_workers": 1, "threads_per_worker": 1},
    }
    return SegmentationConfig.model_validate(values)


def test_variants_train_the_steps_that_fit_into_the_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two of the three, so that as many run side by side."""
    monkeypatch.setattr("flows.ablation.budget.MAX_TRIED_SECONDS", 2.0)
    config = ablated(tmp_path)
    known = find_ablation(config, "skips")
    assert list(known.variants(config)) == ["all", "gated", "none"]
    skips = replace(known, variants=lambda each: dict(list(known.variants(each).items())[:2]))
    fitted = fit_within(config, skips, range(1), SECONDS)
    train = fitted.train  # type: ignore[attr-defined]  # of the segmentation
    assert isinstance(train, TrainSpec)
    assert train.num_steps >= 10
    assert train.within is None
    assert fit_within(config, skips, range(1), SECONDS) == fitted, "the same records give the same number"

    short = fitted.model_copy(update={"train": train.model_copy(update={"num_steps": 10, "validate_every_steps": 5})})
    runs = run_ablation(short, skips, range(1))
    assert [run.variant for run in runs] == ["all", "gated"]
    assert len({run.records["shard"].key for run in runs}) == 1
    assert len({run.records["train"].key for run in runs}) == 2
    for summary in summarise_runs(skips, runs):
        assert [step for step, _ in summary.curve] == [5, 10]
        assert 0 <= summary.estimates["dice"].mean <= 1
    stages = storage.list_names(str(tmp_path / "train"))
    assert run_ablation(short, skips, range(1)) == runs, "everything is a cache hit"
    assert storage.list_names(str(tmp_path / "train")) == stages
