"""Small volumes and label maps."""

from __future__ import annotations

import numpy as np


def corner_volume(shape: tuple[int, int, int] = (6, 10, 4)) -> tuple[np.ndarray, np.ndarray]:
    """Build an image (1, *shape) that is bright at the right, anterior, superior corner, and its label map."""
    image = np.zeros((1, *shape), np.float32)
    truth = np.zeros(shape, np.uint8)
    image[0, 4:, 7:, 3:] = 1000
    truth[4:, 7:, 3:] = 1
    return image, truth
