"""How good a segmentation is, case by case, and how good a set of generated images is, as a distribution.

    overlap            voxel counts: Dice, IoU, volume error
    surface            boundaries in millimetres: 95 % Hausdorff distance, surface Dice
    surface_elements   the pieces of surface that surface Dice weighs
    summary            one case to a table of figures, all cases to means with intervals

    inception          images to the features that FID and KID are measured on (torch; import it by its own name)
    frechet            features to their moments, moments to the Fréchet distance
    kernel             features to the kernel distance
    manifold           precision and recall, nearest neighbours, memorisation

Apart from ``inception`` numpy and scipy only; importing this package loads numpy alone.
"""

from __future__ import annotations

from unet_models.metrics.frechet import FeatureMoments, frechet_distance
from unet_models.metrics.kernel import kernel_distance
from unet_models.metrics.manifold import memorisation, nearest_neighbours, precision_recall
from unet_models.metrics.overlap import confusion_matrix
from unet_models.metrics.summary import METRIC_NAMES, MetricSummary, score_case, summarise
from unet_models.metrics.surface import hd95_mm, surface_dice

__all__ = [
    "METRIC_NAMES",
    "FeatureMoments",
    "MetricSummary",
    "confusion_matrix",
    "frechet_distance",
    "hd95_mm",
    "kernel_distance",
    "memorisation",
    "nearest_neighbours",
    "precision_recall",
    "score_case",
    "summarise",
    "surface_dice",
]
