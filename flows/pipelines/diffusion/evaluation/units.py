"""Scores and features of single generated images: what two models are compared by, image by image."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from data_pipelines import storage
from flows.metrics import parse_metric_name
from flows.pipelines.diffusion.evaluation.parts import Part, Result, decode_features
from flows.stages.attempt import Attempt
from unet_models.metrics.comparison import Counts

UNITS = "units"
"""Output: safetensors with one row per generated image, in the order of their seeds, and the real images' features."""
NUM_RESAMPLES = {"frechet_distance": 50, "fid": 50}
"""Resamples of the paired bootstrap where each takes an eigenvalue decomposition; else 2000."""

Units = dict[str, NDArray[np.float64]]
"""Name to (N,) values or (N, D) features: ``alignment``, ``right``, ``items``, ``related``, ``generated/EXTRACTOR``;
and ``train/EXTRACTOR`` (M, D) of the real images."""


def collect_units(parts: Sequence[Part], results: Sequence[Result]) -> Units:
    """Collect what was measured of each image of the main set, and the features of the training images."""
    done = list(zip(parts, results, strict=True))
    drawn = [(part, result) for part, result in done if part.name == "generated"]
    order = np.argsort([request.seed for part, _ in drawn for request in part.requests], kind="stable")
    units: dict[str, np.ndarray] = {
        "alignment": np.array([value for _, result in drawn for value in result.alignment]),
        "right": np.array([sum(items) for _, result in drawn for items in result.right]),
        "items": np.array([len(items) for _, result in drawn for items in result.right]),
        "related": np.array([flag for _, result in drawn for flag in result.related]),
    }
    units |= {f"generated/{name}": values for name, values in _features([result for _, result in drawn]).items()}
    units = {name: values[order] for name, values in units.items() if len(values)}
    train = _features([result for part, result in done if part.name == "train"])
    units |= {f"train/{name}": values for name, values in train.items()}
    return {name: np.ascontiguousarray(values, np.float64) for name, values in units.items()}


def write_units(attempt: Attempt, units: Units) -> None:
    """Write the units as an output of the attempt."""
    from safetensors.numpy import save

    attempt.write(UNITS, "units.safetensors", save({n: values.astype(np.float32) for n, values in units.items()}))


def read_units(uri: str) -> Units:
    """Read what ``write_units`` wrote."""
    from safetensors.numpy import load_file

    with storage.local_file(uri) as path:
        return {name: values.astype(np.float64) for name, values in load_file(path).items()}


def statistic(name: str, units: Units, train: Units) -> Callable[[Counts], NDArray[np.float64]] | None:
    """Return the metric ``name`` as a function of how often each image counts; None where it was not measured.

    ``train`` holds the features of the real images, for distances.
    """
    parsed = parse_metric_name(name)
    base = parsed.metric.name
    if base in ("frechet_distance", "fid"):
        extractor = "inception" if base == "fid" else parsed.extractor or "clip"
        if f"generated/{extractor}" not in units or f"train/{extractor}" not in train:
            return None
        if len(train[f"train/{extractor}"]) < 2:
            return None
        return _distance(units[f"generated/{extractor}"], train[f"train/{extractor}"])
    if base == "alignment" and "alignment" in units:
        return _ratio(units["alignment"], np.ones_like(units["alignment"]))
    if base == "caption_accuracy" and "right" in units:
        return _ratio(units["right"], units["items"])
    if base == "relation_accuracy" and "related" in units:
        several = (units["items"] > 1).astype(np.float64)
        return _ratio(units["related"] * several, several) if several.any() else None
    return None


def _ratio(parts: NDArray[np.float64], wholes: NDArray[np.float64]) -> Callable[[Counts], NDArray[np.float64]]:
    return lambda counts: (counts @ parts) / np.maximum(counts @ wholes, 1e-12)


def _distance(generated: NDArray[np.float64], train: NDArray[np.float64]) -> Callable[[Counts], NDArray[np.float64]]:
    from unet_models.metrics.frechet import FeatureMoments, FrechetReference

    real = FeatureMoments(train.shape[1])
    real.update(train)
    reference = FrechetReference(real)
    return lambda counts: np.array([reference.distance(FeatureMoments.weighted(generated, row)) for row in counts])


def _features(results: Sequence[Result]) -> dict[str, np.ndarray]:
    pieces = [decode_features(result.features) for result in results]
    return {name: np.concatenate([piece[name] for piece in pieces]) for name in (pieces[0] if pieces else {})}
