"""Weights of classes in the loss."""

from __future__ import annotations

import pyarrow as pa
import pytest

from data_pipelines.errors import ConfigError
from data_pipelines.volumes.sources.regions import with_regions
from flows.pipelines.segmentation.weights import output_weights, weights_by_size
from tests.support.volumes import numbered

LABELS = numbered("background", "liver", "kidney", "lesion")
INDEX = pa.Table.from_pylist(
    [
        {"split": "train", "class_voxels": [900, 4000, 60, 0]},
        {"split": "train", "class_voxels": [900, 4000, 40, 1]},
        {"split": "val", "class_voxels": [900, 0, 0, 1000]},
    ]
)


def test_weights_by_name() -> None:
    assert output_weights(None, LABELS, INDEX) == ()
    assert output_weights({"lesion": 5.0, "background": 0.5}, LABELS, INDEX) == (0.5, 1.0, 1.0, 5.0)
    with pytest.raises(ConfigError, match=r"train\.class_weights: unknown class spleen; choose from background, liver"):
        output_weights({"spleen": 2.0}, LABELS, INDEX)


def test_weights_by_size_are_those_of_training_cases() -> None:
    assert output_weights("auto", LABELS, INDEX) == (1.0, 1.0, 1.0, 10.0)
    assert weights_by_size({"a": 1000, "b": 100, "c": 4}) == {"a": 1.0, "b": 1.0, "c": 5.0}
    assert weights_by_size({"a": 100, "b": 100, "c": 0}) == {"a": 1.0, "b": 1.0, "c": 10.0}


def test_weights_of_regions() -> None:
    regions = with_regions(LABELS, {"all": [1, 2, 3], "kidney with lesion": [2, 3]}, [1, 2], "here")
    assert output_weights({"kidney with lesion": 2.0}, regions, INDEX) == (1.0, 2.0)
    with pytest.raises(ConfigError, match="unknown class background"):
        output_weights({"background": 2.0}, regions, INDEX)
