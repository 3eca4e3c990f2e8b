"""How good a segmentation is: overlap, surface distances, and their summary over cases.

    overlap            voxel counts: Dice, IoU, volume error
    surface            boundaries in millimetres: 95 % Hausdorff distance, surface Dice
    surface_elements   the pieces of surface that surface Dice weighs
    summary            one case to a table of figures, all cases to means with intervals

numpy and scipy only; importing this package loads numpy alone.
"""

from __future__ import annotations

from unet_models.metrics.overlap import confusion_matrix
from unet_models.metrics.summary import METRIC_NAMES, MetricSummary, score_case, summarise
from unet_models.metrics.surface import hd95_mm, surface_dice

__all__ = [
    "METRIC_NAMES",
    "MetricSummary",
    "confusion_matrix",
    "hd95_mm",
    "score_case",
    "summarise",
    "surface_dice",
]
