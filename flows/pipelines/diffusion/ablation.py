"""Ablation of the skip connections of the denoising U-Net. Light to import: the command line lists it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from data_pipelines.errors import ConfigError
from flows.pipelines.diffusion.config import DiffusionConfig
from flows.stages.pipeline import Ablation, Estimate, over_seeds
from unet_models.specs.denoisers import DenoisingUNetSpec

if TYPE_CHECKING:
    from flows.stages.record import Record

SHOWN = ("frechet_distance", "fid", "kid", "caption_accuracy")


def skip_variants(config: DiffusionConfig) -> dict[str, DiffusionConfig]:
    """Return all skip connections, gated ones, none, and those of one level alone, full resolution first."""
    model = config.train.model
    if not isinstance(model, DenoisingUNetSpec):
        raise ConfigError(f"ablate skips: backbone {model.backbone} has no levels; choose train.model.backbone unet")
    levels = len(model.channels)
    skips: dict[str, Any] = {"all": "concat", "gated": "gated", "none": "none"}
    for level in range(levels if levels > 1 else 0):
        skips[f"level {level + 1} alone"] = tuple("concat" if each == level else "none" for each in range(levels))
    return {name: _with_skip(config, model, skip) for name, skip in skips.items()}


def estimate(evaluations: Sequence[Record[Any]]) -> dict[str, Estimate]:
    """Return means over the seeds, with Student's intervals, of the metrics that every evaluation has."""
    from flows.metrics import find_value

    values = {name: [find_value(record.figures.metrics, name) for record in evaluations] for name in SHOWN}
    return {name: over_seeds(found) for name, found in values.items() if all(value == value for value in found)}


def _with_skip(config: DiffusionConfig, model: DenoisingUNetSpec, skip: Any) -> DiffusionConfig:
    changed = model.model_copy(update={"skip": skip})
    return config.model_copy(update={"train": config.train.model_copy(update={"model": changed})})


SKIPS = Ablation(
    name="skips",
    about="Skip connections: all, gated, none, one level alone.",
    variants=skip_variants,
    estimate=estimate,
    quality="val/loss",
)
