"""Declarations of classes: values, colours, what is ignored, regions."""

from __future__ import annotations

from typing import Any

import pytest

from data_pipelines.errors import DataError
from data_pipelines.volumes.classes import Labels
from data_pipelines.volumes.sources.labels import read_labels, read_regions, with_regions
from tests.support.volumes import numbered

BRATS = numbered("background", "edema", "core", "enhancing")


def written(labels: Labels) -> dict[str, tuple[tuple[int, ...], int]]:
    """Classes of each region, and what it is written as."""
    return {region.name: (region.classes, region.written) for region in labels.regions}


@pytest.mark.parametrize(
    ("declared", "names", "values"),
    [
        ({"b": 2, "background": 0, "a": 1}, ("background", "a", "b"), ((0,), (1,), (2,))),
        ({"background": 0, "membrane": 255}, ("background", "membrane"), ((0,), (255,))),
        ({"membrane": 0, "background": 255}, ("background", "membrane"), ((255,), (0,))),
        ({"air": 0, "bone": "7"}, ("air", "bone"), ((0,), (7,))),
        ({"background": [0, 3], "tumour": (4, 1, 2)}, ("background", "tumour"), ((0, 3), (4, 1, 2))),
    ],
)
def test_classes_and_values(declared: Any, names: tuple[str, ...], values: tuple[tuple[int, ...], ...]) -> None:
    labels = read_labels(declared, "here")
    assert (labels.names, labels.values, labels.is_colour, labels.ignored) == (names, values, False, ())


def test_colours() -> None:
    labels = read_labels({"road": "#FF00ff", "background": "#000000", "ignore": ["#ffffff", "#010203"]}, "here")
    assert (labels.names, labels.values) == (("background", "road"), ((0,), (0xFF00FF,)))
    assert (labels.is_colour, labels.ignored) == (True, (0xFFFFFF, 0x010203))


@pytest.mark.parametrize(
    "declared",
    [
        None,
        [],
        {"background": 0},
        {"background": 0, "ignore": 1},
        {"a": 1, "b": 2},
        {"": 0, "b": 2},
        {"background": 0, "a": 1.5},
        {"background": 0, "a": True},
        {"background": 0, "a": []},
        {"background": 0, "a": 1 << 24},
        {"background": 0, "a": 1, "b": [2, 1]},
        {"background": 0, "a": 1, "ignore": 1},
        {"background": 0, "a": "#ff00ff"},
        {"background": "#00000", "a": "#ff00ff"},
    ],
)
def test_unusable_declarations(declared: Any) -> None:
    with pytest.raises(DataError) as caught:
        read_labels(declared, "here")
    (problem,) = caught.value.problems
    assert (problem.rule, problem.path) == ("bad-classes", "here")


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
