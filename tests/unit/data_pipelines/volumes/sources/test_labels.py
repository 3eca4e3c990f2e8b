"""Declarations of classes: values, colours, what is ignored."""

from __future__ import annotations

from typing import Any

import pytest

from data_pipelines.errors import DataError
from data_pipelines.volumes.classes import MEAN
from data_pipelines.volumes.sources.labels import read_labels
from unet_models.metrics.summary import MEAN_CLASS


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


def test_no_class_is_named_as_the_mean_of_all() -> None:
    assert MEAN == MEAN_CLASS
    with pytest.raises(DataError, match=r"bad-classes[^+]*no class or region can be named mean[^+]*another name"):
        read_labels({"background": 0, "mean": 1}, "here")
