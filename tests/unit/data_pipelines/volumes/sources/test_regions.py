"""Declarations of regions."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from data_pipelines.errors import DataError
from data_pipelines.volumes.classes import Labels
from data_pipelines.volumes.sources.labels import read_labels
from data_pipelines.volumes.sources.regions import read_regions, with_regions
from data_pipelines.volumes.specs import DataSpec
from tests.support.volumes import numbered

BRATS = numbered("background", "edema", "core", "enhancing")


def written(labels: Labels) -> dict[str, tuple[tuple[int, ...], int]]:
    """Classes of each region, and what it is written as."""
    return {region.name: (region.classes, region.written) for region in labels.regions}


def test_regions_are_written_as_the_first_class_that_no_later_region_has() -> None:
    regions = {"whole": ["edema", 2, "enhancing"], "core": ["core", 3], "enhancing": ["enhancing"]}
    labels = with_regions(BRATS, regions, None, "here")
    assert written(labels) == {"whole": ((1, 2, 3), 1), "core": ((2, 3), 2), "enhancing": ((3,), 3)}
    ordered = with_regions(BRATS, regions, ["edema", 2, "enhancing"], "here")
    assert ordered == labels


def test_regions_of_overlapping_classes_that_are_not_nested() -> None:
    labels = with_regions(BRATS, {"a": [1, 2], "b": [2, 3]}, None, "here")
    assert written(labels) == {"a": ((1, 2), 1), "b": ((2, 3), 2)}


@pytest.mark.parametrize(
    ("regions", "order", "message"),
    [
        ({"whole": [1, 2]}, None, "no region has class enhancing"),
        ({"whole": [1, 2, 3], "empty": []}, None, "must hold classes"),
        ({"whole": [0, 1, 2, 3]}, None, "the background not among them"),
        ({"background": [1, 2, 3]}, None, "region background"),
        ({"whole": [1, 2, 3, "lesion"]}, None, "'lesion' is no class"),
        ({"whole": [1, 2, 3, 4]}, None, "4 is no class"),
        ({"core": [2], "whole": [1, 2, 3]}, None, "later regions cover it"),
        ({"whole": [1, 2, 3], "core": [2]}, [1], "1 classes to write 2 regions"),
        ({"whole": [1, 2, 3], "core": [2]}, [1, 3], "writes region core as 3"),
    ],
)
def test_unusable_regions(regions: Any, order: Any, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        with_regions(BRATS, regions, order, "here")
    assert [problem.rule for problem in caught.value.problems] == ["bad-regions"]


def test_a_value_among_several_of_a_class_names_no_class() -> None:
    labels = read_labels({"background": 0, "tumour": [1, 2], "edema": 4}, "here")
    with pytest.raises(DataError, match="2 is no class, nor the only value of one"):
        with_regions(labels, {"whole": [2, 4]}, None, "here")
    assert written(with_regions(labels, {"whole": ["tumour", 4]}, None, "here")) == {"whole": ((1, 2), 1)}


def test_nnunets_regions_with_ignored_voxels() -> None:
    declared = {"background": 0, "hippocampus": [1, 2], "anterior": 1, "ignore": 3}
    labels = read_regions(declared, [2, 1], "here")
    assert (labels.names, labels.values, labels.ignored) == (("background", "anterior", "2"), ((0,), (1,), (2,)), (3,))
    assert written(labels) == {"hippocampus": ((1, 2), 2), "anterior": ((1,), 1)}
    assert read_regions(declared, None, "here") == labels
    with pytest.raises(DataError, match="must be a list"):
        read_regions(declared, 2, "here")


def test_what_a_configuration_may_say() -> None:
    spec = DataSpec.model_validate({"classes": {"background": "#000000", "a": ["#00ff00", "#0000FF"]}})
    assert read_labels(spec.classes, "data.classes").values == ((0,), (0x00FF00, 0x0000FF))
    with pytest.raises(ValidationError, match="should match pattern"):
        DataSpec.model_validate({"classes": {"background": 0, "a": "red"}})
    with pytest.raises(ValidationError, match=r"regions_class_order: also give data\.regions"):
        DataSpec.model_validate({"regions_class_order": [1]})


def test_no_region_is_named_as_the_mean_of_all() -> None:
    with pytest.raises(DataError, match=r"bad-regions[^+]*no region can be named mean"):
        with_regions(BRATS, {"mean": [1, 2, 3]}, None, "here")
