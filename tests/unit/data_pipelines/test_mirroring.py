"""Mirrored positions, by hand and as NumPy pads."""

from __future__ import annotations

import numpy as np
import pytest

from data_pipelines.mirroring import mirrored_indices


def test_the_end_is_not_repeated() -> None:
    assert mirrored_indices(-2, 6, 4).tolist() == [2, 1, 0, 1, 2, 3, 2, 1]
    assert mirrored_indices(-2, 2, 1).tolist() == [0, 0, 0, 0]


@pytest.mark.parametrize("size", [2, 3, 7])
@pytest.mark.parametrize("margin", [1, 6, 20])
def test_as_numpy_pads(size: int, margin: int) -> None:
    expected = np.pad(np.arange(size), margin, mode="reflect")
    np.testing.assert_array_equal(mirrored_indices(-margin, size + margin, size), expected)
