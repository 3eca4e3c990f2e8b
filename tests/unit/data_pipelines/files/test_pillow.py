"""Pillow's limits, EXIF orientations and deep grey modes."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data_pipelines.errors import DataError
from data_pipelines.files.pillow import bounded_pixels, is_deep_grey, upright_size


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """An image of 100 pixels."""
    Image.fromarray(np.zeros((10, 10), np.uint8)).save(tmp_path / "a.png")
    return tmp_path / "a.png"


def test_images_beyond_pillows_limit_are_named(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 49)  # an error above twice as many
    with pytest.raises(DataError) as caught, bounded_pixels(path, "ignore", "scale it down"):
        Image.open(path)
    (problem,) = caught.value.problems
    assert (problem.rule, problem.path, problem.remedy) == ("too-large", str(path), "scale it down")


def test_the_warning_below_it_is_an_error_or_ignored(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 99)
    with pytest.raises(DataError, match="too-large"), bounded_pixels(path, "error", "scale it down"):
        Image.open(path)
    with (
        warnings.catch_warnings(action="error"),
        bounded_pixels(path, "ignore", "scale it down"),
        Image.open(path) as im,
    ):
        assert im.size == (10, 10)


def test_four_of_eight_orientations_swap_the_sides() -> None:
    sizes = [upright_size((3, 2), orientation) for orientation in range(1, 9)]
    assert sizes == [(3, 2)] * 4 + [(2, 3)] * 4


def test_deep_grey_in_any_byte_order() -> None:
    assert [is_deep_grey(mode) for mode in ("I;16", "I;16B", "I;16N", "I", "L", "F")] == [True] * 3 + [False] * 3
