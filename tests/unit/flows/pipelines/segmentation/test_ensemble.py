"""Folds that a configuration names are checked before any is trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from data_pipelines import storage
from data_pipelines.errors import ConfigError
from flows.pipelines.segmentation.config import SegmentationConfig
from flows.pipelines.segmentation.ensemble import split_folds


def config_of(fold: Any) -> SegmentationConfig:
    data = {"layout": "phantoms", "num_phantoms": 4, "num_folds": 3, "fold": fold}
    return SegmentationConfig.model_validate({"data": data})


def test_folds_that_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "cache_folder", lambda: tmp_path)
    assert [each.data.fold for each in split_folds(config_of("all"))] == [0, 1, 2]
    assert [each.data.fold for each in split_folds(config_of([2, 0]))] == [2, 0]
    with pytest.raises(ConfigError, match=r"data.fold: \[5, 9\] out of range; there are folds 0..2"):
        split_folds(config_of([9, 0, 5]))
