"""Calibration of a segmentation model: voxels of held-out cases, and the temperatures after which they are calibrated.

Uniformly drawn voxels of a volume would be background that every temperature leaves certain, and hardly one of a small
class. So as many are drawn of each class, half of them where the network is unsure; each weighs as many voxels as it
stands for, since probabilities are to be the frequencies of real images, not of a sample with equal classes.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from safetensors.torch import load, save
from torch import Tensor

from data_pipelines.random_streams import Stream, numpy_generator
from data_pipelines.volumes.classes import Labels
from data_pipelines.volumes.preprocess import Preprocessing, crop_stored
from data_pipelines.volumes.restore import Place
from unet_models.metrics.calibration import (
    Reliability,
    Voxels,
    fit_temperatures,
    measure_reliability,
    negative_log_likelihood,
)
from unet_models.sampling.probabilities import calibrated_probabilities

MAX_VOXELS = 1 << 16
"""Voxels of one evaluation."""
SURE = 0.95
"""Probability of the true class from which the network is sure of a voxel."""
SEED = 0


def voxels_per_stratum(num_cases: int, num_classes: int) -> int:
    """Return how many voxels of a class are drawn of a case, and as many again of unsure ones."""
    return max(MAX_VOXELS // (2 * num_cases * num_classes), 1)


class VoxelSampler:
    """Draws voxels of one case while its logits pass by, plane by plane."""

    def __init__(self, truth: np.ndarray, done: Preprocessing, labels: Labels, size: int, row: int) -> None:
        """Prepare to draw ``size`` voxels per stratum of the case in ``row``, whose truth is (*stored)."""
        self.truth = crop_stored(truth[None], done)[0]
        self.labels, self.size, self.row = labels, size, row
        self.members = _membership(labels)
        self.random = numpy_generator(SEED, Stream.CALIBRATION, row)
        self.counts = np.zeros(2 * labels.num_classes, np.int64)
        self.logits = np.empty((0, labels.num_outputs), np.float32)
        self.numbers = np.empty(0, np.int64)
        self.strata = np.empty(0, np.int64)
        self.keys = np.empty(0)

    def __call__(self, place: Place, logits: Tensor) -> None:
        """Draw among the voxels of a plane: those of the smallest random keys stay, of each stratum."""
        numbers = self.truth[place].ravel().astype(np.int64)
        flat = logits[: self.labels.num_outputs].flatten(1).float()
        strata = 2 * numbers + self._is_unsure(flat, numbers)
        keys = self.random.random(len(numbers))
        known = numbers < self.labels.num_classes
        self.counts += np.bincount(strata[known], minlength=len(self.counts))
        chosen = np.flatnonzero(known)
        chosen = chosen[keys[chosen] < self._limits()[strata[chosen]]]
        chosen = chosen[self._smallest(keys[chosen], strata[chosen])]
        drawn = flat[:, torch.from_numpy(chosen).to(flat.device)].T.cpu().numpy()
        self.logits = np.concatenate([self.logits, drawn])
        self.numbers = np.concatenate([self.numbers, numbers[chosen]])
        self.strata = np.concatenate([self.strata, strata[chosen]])
        self.keys = np.concatenate([self.keys, keys[chosen]])
        kept = self._smallest(self.keys, self.strata)
        self.logits, self.numbers, self.strata, self.keys = (
            each[kept] for each in (self.logits, self.numbers, self.strata, self.keys)
        )

    def finish(self) -> bytes:
        """Return the voxels as ``read_voxels`` reads them."""
        drawn = np.bincount(self.strata, minlength=len(self.counts))
        weights = (self.counts / np.maximum(drawn, 1))[self.strata]
        return save(
            {
                "logits": torch.from_numpy(self.logits),
                "truth": self.members[torch.from_numpy(self.numbers)],
                "weights": torch.from_numpy(weights),
                "rows": torch.full((len(weights),), self.row),
            }
        )

    def _is_unsure(self, flat: Tensor, numbers: np.ndarray) -> np.ndarray:
        """Find the voxels where the truth (of overlapping classes: any of them) is not given a probability near 1."""
        probabilities = calibrated_probabilities(flat, is_exclusive=not self.labels.regions)
        true = self.members.to(flat.device)[
            torch.from_numpy(numbers).to(flat.device).clamp_max(len(self.members) - 1)
        ].T
        lowest = torch.where(true, probabilities, 1 if not self.labels.regions else 1 - probabilities).amin(dim=0)
        return (lowest < SURE).cpu().numpy()

    def _limits(self) -> np.ndarray:
        """Return the key of each stratum above which none is drawn any more: most of a plane, soon, is not sorted."""
        largest = np.zeros(len(self.counts))
        np.maximum.at(largest, self.strata, self.keys)
        is_full = np.bincount(self.strata, minlength=len(self.counts)) >= self.size
        return np.where(is_full, largest, np.inf)

    def _smallest(self, keys: np.ndarray, strata: np.ndarray) -> np.ndarray:
        """Return the places of the ``size`` smallest keys of each stratum."""
        order = np.lexsort((keys, strata))
        ordered = strata[order]
        rank = np.arange(len(order)) - np.searchsorted(ordered, ordered)
        return np.sort(order[rank < self.size])


def _membership(labels: Labels) -> Tensor:
    """Return whether each class (rows) belongs to each output (columns)."""
    if not labels.regions:
        return torch.eye(labels.num_classes, dtype=torch.bool)
    return torch.tensor(
        [[number in region.classes for region in labels.regions] for number in range(labels.num_classes)]
    )


def read_voxels(parts: Sequence[bytes]) -> Voxels:
    """Read the voxels that samplers have drawn, of several cases or evaluations."""
    tensors = [load(part) for part in parts]
    return Voxels(**{name: torch.cat([each[name] for each in tensors]) for name in ("logits", "truth", "weights")})


def join_voxels(parts: Sequence[bytes]) -> bytes:
    """Join the voxels that samplers have drawn; each keeps the row of its case."""
    tensors = [load(part) for part in parts]
    return save({name: torch.cat([each[name] for each in tensors]) for name in tensors[0]})


def select_voxels(voxels: bytes, rows: Collection[int]) -> bytes:
    """Return the voxels of the cases in these rows of the index alone."""
    tensors = load(voxels)
    chosen = torch.isin(tensors["rows"], torch.tensor(sorted(rows), dtype=torch.int64))
    return save({name: tensor[chosen] for name, tensor in tensors.items()})


@dataclass(frozen=True, slots=True)
class Calibration:
    """Temperatures, and what they do on the voxels that they were fitted on."""

    temperatures: tuple[float, ...]
    """One per output."""
    outputs: Mapping[str, int]
    """Output of each target."""
    num_voxels: int
    before: Reliability
    after: Reliability
    likelihoods: tuple[float, float]
    """Mean negative log-likelihood in nats, before and after."""

    @property
    def metrics(self) -> dict[str, float]:
        """Expected calibration errors, of each target and their mean, by full name."""
        found = {}
        for name, reliability in (("calibration_error", self.after), ("uncalibrated_error", self.before)):
            errors = {target: float(reliability.error[place]) for target, place in self.outputs.items()}
            found[name] = float(np.mean(list(errors.values())))
            found |= {f"{name}/{target}": error for target, error in errors.items()}
        return found


def calibrate(voxels: Voxels, labels: Labels) -> Calibration | None:
    """Fit the temperatures, and measure calibration without and with them; None without voxels."""
    if not len(voxels.weights):
        return None
    is_exclusive = not labels.regions
    fitted = fit_temperatures(voxels, is_exclusive=is_exclusive)
    return Calibration(
        temperatures=fitted,
        outputs=labels.outputs,
        num_voxels=len(voxels.weights),
        before=measure_reliability(voxels, is_exclusive=is_exclusive),
        after=measure_reliability(voxels, fitted, is_exclusive=is_exclusive),
        likelihoods=(
            negative_log_likelihood(voxels, is_exclusive=is_exclusive),
            negative_log_likelihood(voxels, fitted, is_exclusive=is_exclusive),
        ),
    )
