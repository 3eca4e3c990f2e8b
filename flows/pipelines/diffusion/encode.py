"""Stage ``encode``: images and captions to latent means and log-variances, and text states, in shards beside them.

Kept values are unscaled and without dropout: the scaling factor is measured here, unless it is configured, and applied
in training, and so is caption dropout. A sample is encoded once for each pair of encoders; an interrupted run resumes
with the next shard.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from data_pipelines import storage
from data_pipelines.digests import digest_of
from data_pipelines.errors import ConfigError, DataError, Problem, WeightsError, name_some
from data_pipelines.images.buckets import bucket_size
from data_pipelines.shards.incremental import Actors, Task, group_by_size, shard_missing
from data_pipelines.shards.index import Row, build_index, read_table
from data_pipelines.shards.writer import npy_bytes, shard_name
from flows.cluster.connection import use_workers
from flows.pipelines.diffusion.config import DiffusionConfig
from flows.pipelines.diffusion.encoders.given import NETWORK_CONFIG, network_folder
from flows.pipelines.diffusion.encoding import Encoding, EncodingWork, ShardEncoder, captions_of, encode_empty_prompt
from flows.sharding.images import ImageShardFigures
from flows.stages.attempt import Attempt
from flows.stages.record import Figures, Record
from flows.stages.shards import IndexFigures, add_index, shards_exist, shards_uri
from flows.stages.stage import Stage
from flows.training.description import PIPELINE_INDEX
from unet_models.formats.diffusers_pipeline import read_scaling_factor

logger = logging.getLogger(__name__)

FORMAT = 3
"""Raised when latents change for the same images and encoders."""
TOLERANCE = 0.05
"""Relative difference of two scaling factors that is said."""
MAX_IMAGES_PER_SHARD = 1000


class LatentFigures(IndexFigures):
    """Figures of encoded images."""

    scaling_factor: float
    """Factor that latents are multiplied by in training: as configured, or as measured."""
    measured_scaling_factor: float | None = None
    """One over the standard deviation of the training images' latents; None: ``scaling_factor`` is it."""
    latent_shape: tuple[int, int, int]
    """Channels, height and width of the latents of the square."""
    caption_tokens: int
    """Tokens of a caption that the text encoder reads."""
    num_cut_captions: int
    """Captions that are longer: their end is not read."""
    classes: tuple[str, ...] = ()
    """Names of the classes of the training images, in the order of their labels."""


def encode_stage(
    config: DiffusionConfig, shards: Record[ImageShardFigures], clip: Record[Figures], autoencoder: Record[Figures]
) -> Stage[LatentFigures]:
    """Plan the stage: its key holds the digests of the images and the encoders."""
    identity: dict[str, Any] = {"precision": config.encode.precision, "format": FORMAT}
    if config.encode.scaling_factor is not None:  # left out else, as it was before there was such a field
        identity["scaling_factor"] = config.encode.scaling_factor
    encoding = Encoding(
        images_uri=shards_uri(shards),
        clip_uri=network_folder(clip),
        autoencoder_uri=network_folder(autoencoder),
        batch_size=config.encode.batch_size,
        precision=config.encode.precision,
        threads=config.compute.threads_per_worker,
        use_gpu=config.compute.use_gpu,
    )
    encoders = digest_of([FORMAT, clip.digest, autoencoder.digest, config.encode.precision])

    def compute(attempt: Attempt) -> LatentFigures:
        figures = _encode(config, shards, encoding, encoders, attempt)
        given = config.encode.autoencoder
        # Of one alone, nobody knows whether it is diffusers' default, as in those that are trained here.
        if given and (Path(given).parent / PIPELINE_INDEX).is_file():
            stated = read_scaling_factor(json.loads(storage.read_bytes(autoencoder.output(NETWORK_CONFIG))))
            log_stated_factor(stated, figures.scaling_factor)
        return figures

    inputs = (shards, clip, autoencoder)
    return Stage("encode", identity, inputs, compute, LatentFigures, shards_exist, uses_gpu=True)


def _encode(
    config: DiffusionConfig, shards: Record[ImageShardFigures], encoding: Encoding, encoders: str, attempt: Attempt
) -> LatentFigures:
    compute = config.compute
    rows = {row["case_id"]: row for row in read_table(shards.output("index")).to_pylist()}
    digests = {case_id: digest_of([encoders, row["digest"], captions_of(row)]) for case_id, row in rows.items()}
    folder = f"latents/{encoders[:12]}"
    uri = storage.join(shards.root, folder)

    def plan(missing: list[str]) -> list[Task]:
        return _plan([rows[case_id] for case_id in missing], digests, uri, encoding)

    pool = Actors(ShardEncoder, compute.max_workers, compute.threads_per_worker, 1 if compute.use_gpu else 0)
    with use_workers(compute):
        sharded = shard_missing(digests, uri, plan, pool, "images", verb="encode")
    if sharded.problems:  # without their cases, which data.on_error=quarantine leaves out of shards, not of latents
        raise DataError([replace(problem, case_id="") for problem in sharded.problems])
    copied = ("pixel_sha256", "class_name")
    encoded = [row | {name: rows[row["case_id"]].get(name) for name in copied} for row in sharded.rows]
    latents = build_index(encoded, {case_id: row["split"] for case_id, row in rows.items()})
    counts = add_index(attempt, latents, shards.root, folder)
    empty_prompt = encode_empty_prompt(encoding)
    attempt.write("empty_prompt", "empty_prompt.npy", npy_bytes(empty_prompt))
    num_cut = sum(row["cut_captions"] for row in sharded.rows)
    if num_cut:
        logger.warning("encode: %d captions have more than %d tokens, the rest is ignored", num_cut, len(empty_prompt))
    first = sharded.rows[0]
    measured = scaling_factor([row for row in latents.to_pylist() if row["split"] == "train"])
    return LatentFigures(
        **counts,
        num_new=sharded.num_new,
        **choose_factor(config.encode.scaling_factor, measured),
        latent_shape=square_latent_shape(first, rows[first["case_id"]], config.data.resolution),
        caption_tokens=len(empty_prompt),
        num_cut_captions=num_cut,
        classes=class_names(latents.to_pylist())[0],
    )


def choose_factor(configured: float | None, measured: float) -> dict[str, float]:
    """Return the scaling factor that training uses and the measured one; warn where they differ."""
    used = configured or measured
    if _differ(used, measured):
        logger.warning(
            "encode: encode.scaling_factor is %.5g, the one measured on the training images is %.5g: right for a noise "
            "predictor that was trained with it (train.init); leave it out to train one from random weights",
            used,
            measured,
        )
    return {"scaling_factor": used, "measured_scaling_factor": measured}


def log_stated_factor(stated: float, used: float) -> None:
    """Log where the autoencoder of a pipeline states another scaling factor than the one that is used."""
    if _differ(used, stated):
        logger.info(
            "encode: config.json of encode.autoencoder states the scaling factor %.5g, and %.5g is used; to go on with "
            "a noise predictor that was trained on its latents (train.init), set encode.scaling_factor=%.5g",
            stated,
            used,
            stated,
        )


def _differ(used: float, other: float) -> bool:
    return abs(used - other) > TOLERANCE * other


def class_names(rows: Sequence[Row]) -> tuple[tuple[str, ...], dict[str, str]]:
    """Return the classes of the training images, sorted, none where the data have none; and those that held-out images
    alone have, each with one of them."""
    train = {row["class_name"] for row in rows if row["split"] == "train"} - {None}
    held_out = {row["class_name"]: row["case_id"] for row in rows if row["split"] == "val"}
    return tuple(sorted(train)), {name: held_out[name] for name in sorted(held_out.keys() - train - {None})}


def check_classes(config: DiffusionConfig, shards: Record[ImageShardFigures]) -> None:
    """Raise ConfigError where the network takes another number of classes than the training images have, and DataError
    where a held-out image has a class that no training image has: before anything is trained."""
    number = config.train.model.num_class_embeds
    if number is None:
        return
    rows = read_table(shards.output("index"), columns=["case_id", "class_name", "split"]).to_pylist()
    classes, lost = class_names(rows)
    remedy = "add images of it, leave it out, or generate another split (data.split_seed)"
    if problems := [
        Problem("held-out-class", case_id, f"its class {name!r} has no training image", remedy)
        for name, case_id in lost.items()
    ]:
        raise DataError(problems)
    if number != len(classes) + 1:
        raise ConfigError(
            f"train.model.num_class_embeds ({number}) must be {len(classes) + 1}: the training images have "
            f"{len(classes)} classes ({name_some(classes, 10)}), and one more label means no class"
        )


def square_latent_shape(latents: Row, image: Row, resolution: int) -> tuple[int, int, int]:
    """Compute channels, height and width of the square's latents from the index rows of any image."""
    channels, height, _ = latents["latent_shape"]
    _, pixels = bucket_size(image["bucket"])
    side = resolution * height // pixels
    return channels, side, side


def scaling_factor(rows: Sequence[Row]) -> float:
    """Compute one over the standard deviation of latents drawn from the posteriors, over images, places, channels.

    Raises WeightsError where they all are the same, or not finite.
    """
    first = np.mean([row["latent_mean"] for row in rows])
    second = np.mean([row["latent_square"] for row in rows])
    variance = second - first**2
    if not (np.isfinite(variance) and variance > 0):
        raise WeightsError(
            f"the latents of {len(rows)} training images have the variance {variance:g} and cannot be scaled; name "
            "another encode.autoencoder, or train one longer (train_autoencoder.num_steps)"
        )
    return float(1 / np.sqrt(variance))


def _plan(rows: list[Row], digests: Mapping[str, str], latents_uri: str, encoding: Encoding) -> list[Task]:
    """Group images that are stored together. ``digests`` is case_id to the digest of its latents."""
    tasks = []
    ordered = sorted(rows, key=lambda row: row["shard"])
    for group in group_by_size(ordered, _no_megabytes, 1.0, MAX_IMAGES_PER_SHARD):
        names = [digests[row["case_id"]] for row in group]
        kept = [{name: value for name, value in row.items() if value is not None} for row in group]
        work = EncodingWork(
            encoding=encoding, uri=storage.join(latents_uri, shard_name(names)), rows=kept, digests=names
        )
        tasks.append(Task(text=work.model_dump_json(), num_samples=len(group)))
    return tasks


def _no_megabytes(row: Row) -> float:
    """Latents are small: only their number limits a shard."""
    return 0.0
