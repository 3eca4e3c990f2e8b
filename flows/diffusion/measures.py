"""From the features of image sets to the metrics of an evaluation, each with its extractor and N in its name."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from flows.diffusion.drawing import Part, Result, features_of

Features = dict[str, np.ndarray]
"""Extractor to (N, D)."""


@dataclass(frozen=True, slots=True)
class Measured:
    """What was found."""

    metrics: dict[str, float]
    protocol: dict[str, str]
    """How it was computed, for the report."""
    generated: Features
    train: Features


def measure(parts: Sequence[Part], results: Sequence[Result]) -> Measured:
    """All metrics of an evaluation; ``results`` are those of ``parts``, in their order."""
    from unet_models.metrics.frechet import FeatureMoments, frechet_distance
    from unet_models.metrics.kernel import kernel_distance
    from unet_models.metrics.manifold import memorisation, precision_recall

    done = list(zip(parts, results, strict=True))
    sets: dict[str, Features] = {}
    for name in ("generated", "prior", "train", "val"):
        sets[name] = _gather([result.features for part, result in done if part.name == name])
    sets["restored"] = _gather([result.restored for part, result in done if part.name == "val"])

    def distance(name: str, extractor: str) -> float:
        moments = []
        for chosen in (sets[name], sets["train"]):
            moments.append(FeatureMoments(chosen[extractor].shape[1]))
            moments[-1].update(chosen[extractor])
        return frechet_distance(*moments)

    metrics: dict[str, float] = _captions(done)
    protocol: dict[str, str] = {}
    for extractor, generated in sets["generated"].items():
        train, val = sets["train"][extractor], sets["val"][extractor]
        tag = f"[{extractor},n={len(generated)}]"
        frechet = f"fid[n={len(generated)}]" if extractor == "inception" else f"frechet_distance{tag}"
        metrics[frechet] = distance("generated", extractor)
        metrics[f"{frechet}/prior"] = distance("prior", extractor)
        restored = frechet.replace(f"n={len(generated)}", f"n={len(val)}")
        if len(val) > 1:
            metrics[f"{restored}/reconstruction"] = distance("restored", extractor)
        metrics[f"kid{tag}"] = kernel_distance(generated, train)[0]
        metrics[f"precision{tag}"], metrics[f"recall{tag}"] = precision_recall(train, generated)
        nearest = memorisation(generated, train, val)
        metrics[f"nearest_ratio{tag}"] = nearest["median_ratio"]
        metrics[f"nearer_than_held_out{tag}"] = nearest["closer_than_held_out_p5"]
        protocol |= {
            "N": f"{len(generated)} generated images",
            "real images": f"{len(train)} of the training images; {len(val)} held-out ones for reconstruction",
            f"feature dimension[{extractor},n={len(generated)}]": str(generated.shape[1]),
        }
        if extractor == "inception":
            from unet_models.metrics.inception import PROTOCOL

            protocol["Inception"] = str(PROTOCOL)
    metrics |= _alignment(done)
    errors = [(result.squared_error, len(part.rows)) for part, result in done if part.name == "val"]
    error = sum(e * n for e, n in errors) / sum(n for _, n in errors)
    metrics["psnr"] = 10 * math.log10(4 / max(error, 1e-12))
    return Measured(
        {name: value for name, value in metrics.items() if math.isfinite(value)},
        protocol,
        sets["generated"],
        sets["train"],
    )


def _captions(done: Sequence[tuple[Part, Result]]) -> dict[str, float]:
    """Share of the items of the prompts that were drawn, where they can be read back."""
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
    """Mean cosine of images and prompts; that of real images with their own captions is the yardstick."""
    metrics = {}
    for name, suffix in (("generated", ""), ("val", "/real")):
        values = [value for part, result in done if part.name == name for value in result.alignment]
        if values:
            metrics[f"alignment[clip,n={len(values)}]{suffix}"] = float(np.mean(values))
    return metrics


def _gather(pieces: Sequence[dict[str, str]]) -> Features:
    arrays = [features_of(piece) for piece in pieces]
    return {name: np.concatenate([piece[name] for piece in arrays]) for name in (arrays[0] if arrays else {})}
