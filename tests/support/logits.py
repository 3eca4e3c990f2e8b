"""Logits of a whole image, as the plane-by-plane prediction would yield them."""

from __future__ import annotations

import numpy as np
import torch

from data_pipelines.volumes.preprocess import Preprocessing
from data_pipelines.volumes.restore import restore_labels
from tests.support.volumes import numbered


def restored(logits: np.ndarray, done: Preprocessing, axis: int = 0, num_strips: int = 1) -> np.ndarray:
    """Restore the label map (*stored) of logits (K, *prepared)."""
    whole, labels = torch.from_numpy(logits), numbered("background", *map(str, range(1, len(logits))))
    return restore_labels(lambda box: whole[(slice(None), *box)].unbind(1 + axis), done, labels, axis, num_strips)
