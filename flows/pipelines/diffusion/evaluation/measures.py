"""From the features of image sets to the metrics of an evaluation, each with extractor and N in its name."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from data_pipelines.loading.order import evenly_spaced
from flows.pipelines.diffusion.evaluation.neighbours import SEARCHED, Neighbours
from flows.pipelines.diffusion.evaluation.parts import Part, Result, decode_features

logger = logging.getLogger(__name__)

Features = dict[str, np.ndarray]
"""Extractor to (N, D)."""
FeatureSets = dict[str, Features]
"""Set of images (``generated``, ``prior``, ``train``, ``val``, ``restored``) to its features."""
NEIGHBOURS = 3
"""Neighbours of precision and recall, as published (Kynkaanniemi 2019)."""
COMPARED = {"prior": "prior", "restored": "reconstruction"}
"""Sets whose distance from the training images is measured beside that of the generated ones, to their part's name."""


@dataclass(frozen=True, slots=True)
class Measured:
    """Metrics, how they were computed, and the features behind them."""

    metrics: dict[str, float]
    dimensions: dict[str, int]
    """Extractor to its number of features."""
    protocol: dict[str, str]
    """How the metrics were computed, for the report."""
    neighbours: Neighbours
    """Nearest training images of the generated and the held-out ones."""


def gather_features(parts: Sequence[Part], results: Sequence[Result]) -> FeatureSets:
    """Collect the features of each set of images; ``results`` are those of ``parts``, in their order."""
    done = list(zip(parts, results, strict=True))
    sets = {
        name: _gather([result.features for part, result in done if part.name == name])
        for name in ("generated", "prior", "train", "val")
    }
    sets["restored"] = _gather([result.restored for part, result in done if part.name == "val"])
    return sets


def measure(parts: Sequence[Part], results: Sequence[Result], sets: FeatureSets, neighbours: Neighbours) -> Measured:
    """Compute all metrics of an evaluation; ``results`` are those of ``parts``, in their order."""
    done = list(zip(parts, results, strict=True))
    metrics = _captions(done)
    protocol: dict[str, str] = {}
    dimensions: dict[str, int] = {}
    for extractor in sets["generated"]:
        features = {name: found[extractor] for name, found in sets.items()}
        metrics |= _distances(extractor, features) | _coverage(extractor, features)
        metrics |= _memorisation(extractor, neighbours)
        protocol |= _protocol(extractor, features)
        dimensions[extractor] = features["generated"].shape[1]
    metrics |= _alignment(done) | {"psnr": _psnr(done)}
    if undefined := [name for name, value in metrics.items() if not math.isfinite(value)]:
        logger.warning("evaluate: %s not defined for these images, and left out", ", ".join(undefined))
    finite = {name: value for name, value in metrics.items() if math.isfinite(value)}
    return Measured(finite, dimensions, protocol, neighbours)


def _distances(extractor: str, features: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Compute Fréchet and kernel distances of each set of more than one image to the training images.

    ``features`` maps the set to (N, D). A Fréchet distance compares at equal N alone: a set is measured at its N or
    that of the generated images, whichever is smaller, and so are they once more where theirs is larger.
    """
    generated = features["generated"]
    chosen = {f"n={len(generated)}]": generated}
    for name, part in COMPARED.items():
        count = min(len(generated), len(features[name]))
        if count < len(generated):
            chosen[f"n={count}]/generated"] = _spaced(generated, count)
        chosen[f"n={count}]/{part}"] = _spaced(features[name], count)
    metrics: dict[str, float] = {}
    for suffix, found in chosen.items():
        if min(len(found), len(features["train"])) > 1:
            metrics |= _distance(extractor, suffix, found, features["train"])
    return metrics


def _distance(extractor: str, suffix: str, found: np.ndarray, train: np.ndarray) -> dict[str, float]:
    """Compute both distances of one set; a kernel distance of a few images says nothing and is left out."""
    from unet_models.metrics.frechet import FeatureMoments, frechet_distance
    from unet_models.metrics.kernel import kernel_distance

    moments = []
    for each in (found, train):
        moments.append(FeatureMoments(each.shape[1]))
        moments[-1].update(each)
    name = "fid[" if extractor == "inception" else f"frechet_distance[{extractor},"
    metrics = {name + suffix: frechet_distance(*moments)}
    if min(len(found), len(train)) > NEIGHBOURS:
        metrics[f"kid[{extractor},{suffix}"] = kernel_distance(found, train)[0]
    return metrics


def _spaced(features: np.ndarray, count: int) -> np.ndarray:
    return features[evenly_spaced(range(len(features)), count)]


def _coverage(extractor: str, features: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Compute quality and variety of the generated images, sample by sample; none where a set is too small."""
    from unet_models.metrics.manifold import precision_recall

    generated, train = features["generated"], features["train"]
    if min(len(generated), len(train)) <= NEIGHBOURS:
        return {}
    precision, recall = precision_recall(train, generated, NEIGHBOURS)
    suffix = f"[{extractor},n={len(generated)}]"
    return {f"precision{suffix}": precision, f"recall{suffix}": recall}


def _memorisation(extractor: str, neighbours: Neighbours) -> dict[str, float]:
    """Compute how near the generated images come to training images, measured by how near held-out images come."""
    from unet_models.metrics.manifold import memorisation

    generated, held_out = (neighbours.get(f"{name}/{extractor}") for name in SEARCHED)
    if generated is None or held_out is None:
        return {}
    found = memorisation(generated.distances[:, 0], held_out.distances[:, 0])
    suffix = f"[{extractor},n={len(generated.distances)}]"
    return {
        f"nearest_ratio{suffix}": found["median_ratio"],
        f"nearer_than_held_out{suffix}": found["closer_than_held_out_p5"],
    }


def _protocol(extractor: str, features: Mapping[str, np.ndarray]) -> dict[str, str]:
    """Describe what else the metrics depend on."""
    count, dimension = features["generated"].shape
    protocol = {
        "N": f"{count} generated images",
        "real images": f"{len(features['train'])} of the training images; {len(features['val'])} held-out ones for "
        "reconstruction; of what is not square the middle, real and generated alike",
        f"features of {extractor}": str(dimension),
    }
    if extractor == "inception":
        from unet_models.metrics.inception import PROTOCOL

        protocol["Inception"] = PROTOCOL
    return protocol


def _psnr(done: Sequence[tuple[Part, Result]]) -> float:
    """Compute the peak signal-to-noise ratio of the reconstructed images, in dB."""
    val = [(result.squared_error, len(part.rows)) for part, result in done if part.name == "val"]
    error = sum(squared * count for squared, count in val) / sum(count for _, count in val)
    return 10 * math.log10(4 / max(error, 1e-12))  # values span 2, from -1 to 1


def _captions(done: Sequence[tuple[Part, Result]]) -> dict[str, float]:
    """Compute the share of the prompts' items that were drawn, where images can be compared with their captions."""
    metrics = {}
    for name, suffix in (("generated", ""), ("held_out", "/held_out"), ("untrained", "/untrained")):
        right = [item for part, result in done if part.name == name for image in result.right for item in image]
        if right:
            metrics[f"caption_accuracy{suffix}"] = float(np.mean(right))
    related = [
        flag
        for part, result in done
        if part.name == "generated"
        for flag, items in zip(result.related, result.right, strict=True)
        if len(items) > 1
    ]
    return metrics | ({"relation_accuracy": float(np.mean(related))} if related else {})


def _alignment(done: Sequence[tuple[Part, Result]]) -> dict[str, float]:
    """Compute the mean cosine of images and prompts; that of real images with their captions is the yardstick."""
    metrics = {}
    for name, suffix in (("generated", ""), ("val", "/real")):
        values = [value for part, result in done if part.name == name for value in result.alignment]
        if values:
            metrics[f"alignment[clip,n={len(values)}]{suffix}"] = float(np.mean(values))
    return metrics


def _gather(pieces: Sequence[dict[str, str]]) -> Features:
    arrays = [decode_features(piece) for piece in pieces]
    return {name: np.concatenate([piece[name] for piece in arrays]) for name in (arrays[0] if arrays else {})}
