"""The champion on a new version's prompts: drawn by its own bundle, measured and compared image by image."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa

from data_pipelines import storage
from data_pipelines.errors import InputError
from data_pipelines.temporary import temporary_folder
from flows.metrics import parse_metric_name
from flows.pipelines.diffusion.config import DiffusionConfig
from flows.pipelines.diffusion.evaluate import (
    GenerationScores,
    condition_names,
    conditions_of,
    draw_parts,
    evaluation_digest,
    read_samples,
)
from flows.pipelines.diffusion.evaluation.parts import Part
from flows.pipelines.diffusion.evaluation.plan import plan_parts
from flows.pipelines.diffusion.evaluation.units import (
    NUM_RESAMPLES,
    UNITS,
    Units,
    collect_units,
    read_units,
    statistic,
    write_units,
)
from flows.pipelines.diffusion.model import Trained
from flows.registry.bundle import read_bundle
from flows.registry.champion import Champion, Compared, readable_bundle
from flows.registry.gate import Comparison, Incomparable
from flows.stages.attempt import Attempt
from flows.stages.record import Record
from flows.training.champion import evaluate_champion
from unet_models.metrics.comparison import compare_paired
from unet_models.specs.diffusion import Bundle

PER_IMAGE = ("alignment", "right", "items", "related")
"""Units that are one number per image, for the table."""


def compare_with_champion(
    config: DiffusionConfig, trained: Trained, evaluation: Record[GenerationScores], champion: Champion, metric: str
) -> Compared:
    """Draw the prompts of the evaluation with the champion, where it was not done yet, and compare the images.

    Raises InputError where the champion cannot draw them, or was trained on the held-out images.
    """
    known = champion.find_evaluation(evaluation_digest(config, trained), config.storage_uri, GenerationScores)
    theirs_record = known if known is not None and UNITS in known.outputs else _draw_champion(config, trained, champion)
    ours, theirs = read_units(evaluation.output(UNITS)), read_units(theirs_record.output(UNITS))
    statistics = [statistic(metric, units, ours) for units in (ours, theirs)]
    if statistics[0] is None or statistics[1] is None:
        return Compared(Incomparable(f"{metric} was not measured image by image for both models"))
    our_statistic, their_statistic = statistics[0], statistics[1]
    score, base = parse_metric_name(metric).metric.score, parse_metric_name(metric).metric.name
    count, level = _num_images(ours), config.registry.compare_level
    found = compare_paired(
        lambda counts: score(our_statistic(counts)),
        lambda counts: score(their_statistic(counts)),
        count,
        level=level,
        num_resamples=NUM_RESAMPLES.get(base, 2000),
    )
    everything = np.ones((1, count))
    values = float(our_statistic(everything)[0]), float(their_statistic(everything)[0])
    comparison = Comparison(metric, values[0], values[1], found.lower_bound, level, count)
    return Compared(comparison, _side_by_side(ours, theirs))


def _draw_champion(config: DiffusionConfig, trained: Trained, champion: Champion) -> Record[GenerationScores]:
    """Draw and measure the champion's images; a cache hit where these prompts were drawn before."""
    identity = {"data": evaluation_digest(config, trained)}
    compute = partial(_compute, config, trained, champion)
    return evaluate_champion(config, champion, identity, trained.records[:2], compute, GenerationScores)


def _compute(config: DiffusionConfig, trained: Trained, champion: Champion, attempt: Attempt) -> GenerationScores:
    with temporary_folder("champion") as folder:
        files = champion.fetch_bundle(folder)
        with readable_bundle():
            bundle = read_bundle(files, Bundle)
        check_fits(files, bundle, config)
        storage.copy_folder(str(files), attempt.uri("model"))
    guidance = bundle.sample.guidance_scale
    plan = plan_parts(config, read_samples(trained))
    parts = [_guided(part, guidance) for part in plan.parts if part.name == "generated"]
    results = draw_parts(config, trained, attempt, parts, model_uri=attempt.uri("model"))
    write_units(attempt, collect_units(parts, results))
    return GenerationScores(metrics={}, num_images=sum(part.num_images for part in parts))


def check_fits(folder: Path, bundle: Bundle, config: DiffusionConfig) -> None:
    """Raise InputError where a model draws images of another size, or under other conditions: it would be asked for
    something else."""
    from unet_models.formats.denoiser_folder import load_denoiser
    from unet_models.networks.autoencoder import downsampling_factor

    network, wanted = load_denoiser(folder / "unet").spec, conditions_of(config)
    found = condition_names(
        takes_text=network.context_dim is not None,
        takes_classes=bool(bundle.classes),
        image=bundle.image_condition.kind,
    )
    if found != wanted:
        raise InputError(
            f"its conditions are {', '.join(found) or 'none'}, those of this model {', '.join(wanted) or 'none'}"
        )
    resolution = config.data.resolution
    autoencoder = json.loads((folder / "vae" / "config.json").read_text())
    side = bundle.latent_shape[-1] * downsampling_factor(autoencoder)
    if side != resolution:
        raise InputError(f"it generates images of {side} pixels, the data have {resolution}")


def _guided(part: Part, guidance: float) -> Part:
    """Return the part with the guidance scale that the model was registered with."""
    requests = tuple(request.model_copy(update={"guidance_scale": guidance}) for request in part.requests)
    return part.model_copy(update={"requests": requests})


def _num_images(units: Units) -> int:
    return next(len(values) for name, values in units.items() if not name.startswith("train/"))


def _side_by_side(ours: Units, theirs: Units) -> pa.Table:
    columns: dict[str, np.ndarray] = {"image": np.arange(_num_images(ours))}
    for name in PER_IMAGE:
        if name in ours and name in theirs:
            columns |= {name: ours[name], f"champion {name}": theirs[name]}
    return pa.table(columns)
