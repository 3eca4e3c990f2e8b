"""Time that predictions take without a GPU, by which a plan keeps to the time that the user gave.

Training ends on time by itself (``train.within``); the resolution decides what validation, evaluation and every later
prediction take. On two CPUs a volume of 256 voxels per axis takes minutes, and eight times as long mirrored.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from data_pipelines.cores import count_cpus
from flows.pipelines.segmentation.planning.candidates import Candidate
from unet_models.specs.segmentation import PredictSpec, count_windows

CPU_VOXELS_PER_SECOND = 250_000
"""Voxels of windows that one CPU predicts in a second, through a planned network in float32: of volumes two thirds of
what was measured with AVX2, of images about that (docs/segmentation.md)."""
IMAGE_SHARE = 0.1
"""Largest share of the training time that the prediction of one image may take."""
MIRRORING_SHARE = 0.25
"""Largest share of the training time that an evaluation with test-time mirroring may take."""
VALIDATION_SHARE = 0.03
"""Largest share of the training time that one of its validations may take."""


@dataclass(frozen=True, slots=True)
class Effort:
    """Predictions of a trained candidate on this machine's CPUs."""

    candidate: Candidate
    held_out: int
    """Cases that are held out."""

    @property
    def seconds(self) -> float:
        """Time of the median image in overlapping windows, not mirrored."""
        return self._seconds(PredictSpec().overlap)

    @property
    def num_validated(self) -> float:
        """Held-out cases that a validation predicts in one second, in windows side by side."""
        return 1 / self._seconds(0)

    def suits(self, within_seconds: float) -> bool:
        """Tell whether an image takes a small share of the training time, and all that are held out no more than it."""
        return self.seconds <= IMAGE_SHARE * within_seconds and self.evaluation_seconds(0) <= within_seconds

    def evaluation_seconds(self, num_mirrored: int) -> float:
        """Return the time of all held-out cases, mirrored along so many axes."""
        return 2**num_mirrored * self.held_out * self.seconds

    def _seconds(self, overlap: float) -> float:
        patch = self.candidate.sizes.topology.patch_size
        sizes = zip(self.candidate.shape, patch, strict=True)
        numbers = [count_windows(size, window, overlap) for size, window in sizes]
        return math.prod(numbers) * math.prod(patch) / (CPU_VOXELS_PER_SECOND * count_cpus())


def in_order_of_choice(candidates: Sequence[Candidate], held_out: int, within_seconds: float) -> list[Candidate]:
    """Return the candidates, the one to train without a GPU first.

    That is a low resolution, if there is one, where the full one does not suit the training time.
    """
    full, *others = candidates
    low = next((each for each in others if each.name == "3d_lowres"), None)
    if low is None or Effort(full, held_out).suits(within_seconds):
        return list(candidates)
    return [low, full, *(each for each in others if each is not low)]
