"""Small volumes and label maps, and the rule that a volume file breaks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from data_pipelines.errors import DataError
from data_pipelines.volumes.classes import Labels
from data_pipelines.volumes.files import read_volume

LIMIT = 1 << 20
"""Voxels that a volume may have."""


def rule_of(path: Path, max_voxels: int = LIMIT) -> str:
    """Read a volume that breaks one rule; return the rule, having seen file, message and remedy."""
    with pytest.raises(DataError) as caught:
        read_volume(path, max_voxels)
    (problem,) = caught.value.problems
    assert problem.message
    assert problem.remedy
    assert path.name in problem.path
    return problem.rule


def corner_volume(shape: tuple[int, int, int] = (6, 10, 4)) -> tuple[np.ndarray, np.ndarray]:
    """Build an image (1, *shape) that is bright at the right, anterior, superior corner, and its label map."""
    image = np.zeros((1, *shape), np.float32)
    truth = np.zeros(shape, np.uint8)
    image[0, 4:, 7:, 3:] = 1000
    truth[4:, 7:, 3:] = 1
    return image, truth


def numbered(*names: str) -> Labels:
    """Build the labels of files that hold the numbers of their classes, background first."""
    return Labels(names=names, values=tuple((number,) for number in range(len(names))))
