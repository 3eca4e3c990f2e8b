"""Stage ``encode``: images and captions to latent means and log-variances, and text states, in shards beside them.

Kept values are unscaled and without dropout: the scaling factor is measured here and applied in training, and so is
caption dropout. A sample is encoded once for each pair of encoders; an interrupted run resumes with the next shard.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from data_pipelines import storage
from data_pipelines.digests import digest_of
from data_pipelines.errors import Problem
from data_pipelines.images.buckets import bucket_size
from data_pipelines.loading.order import group_alike
from data_pipelines.shards.incremental import Actors, Task, group_by_size, shard_missing
from data_pipelines.shards.index import MOMENTS, STATES, Row, build_index, index_table, read_table
from data_pipelines.shards.writer import npy_bytes, shard_name, write_shard
from data_pipelines.specs import Spec
from flows.cluster.connection import connect_workers
from flows.pipelines.diffusion.config import DiffusionConfig
from flows.pipelines.diffusion.encoders.given import network_folder
from flows.pipelines.diffusion.shard import ImageShardFigures
from flows.stages.attempt import Attempt
from flows.stages.record import Figures, Record
from flows.stages.shards import IndexFigures, add_index, shards_exist, shards_uri
from flows.stages.stage import Stage

if TYPE_CHECKING:
    from torch import Tensor

    from data_pipelines.loading.loader import ImageSamples
    from unet_models.formats.clip_folder import Clip

FORMAT = 1
"""Raised when latents change for the same images and encoders."""
MAX_IMAGES_PER_SHARD = 1000


class LatentFigures(IndexFigures):
    """Figures of encoded images."""

    scaling_factor: float
    """One over the standard deviation of the training images' latents."""
    latent_shape: tuple[int, int, int]
    """Channels, height and width of the latents of the square."""


class Encoding(Spec):
    """Encoders and settings that every shard is encoded with."""

    images_uri: str
    clip_uri: str
    autoencoder_uri: str
    batch_size: int
    precision: Literal["fp32", "bf16"]
    threads: int
    use_gpu: bool


class EncodingWork(Spec):
    """One shard of latents to be written; travels as JSON."""

    encoding: Encoding
    uri: str
    rows: list[Row]
    """Index rows of the images."""
    digests: list[str]
    """Digest of each sample's latents."""


def encode_stage(
    config: DiffusionConfig, shards: Record[ImageShardFigures], clip: Record[Figures], autoencoder: Record[Figures]
) -> Stage[LatentFigures]:
    """Plan the stage: its key holds the digests of the images and the encoders."""
    identity = {"precision": config.encode.precision, "format": FORMAT}
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
        return _encode(config, shards, encoding, encoders, attempt)

    inputs = (shards, clip, autoencoder)
    return Stage("encode", identity, inputs, compute, LatentFigures, shards_exist, uses_gpu=True)


def _encode(
    config: DiffusionConfig, shards: Record[ImageShardFigures], encoding: Encoding, encoders: str, attempt: Attempt
) -> LatentFigures:
    compute = config.compute
    connect_workers(compute)
    rows = {row["case_id"]: row for row in read_table(shards.output("index")).to_pylist()}
    digests = {case_id: digest_of([encoders, row["digest"]]) for case_id, row in rows.items()}
    folder = f"latents/{encoders[:12]}"
    uri = storage.join(shards.root, folder)

    def plan(missing: list[str]) -> list[Task]:
        return _plan([rows[case_id] for case_id in missing], digests, uri, encoding)

    pool = Actors(ShardEncoder, compute.max_workers, compute.threads_per_worker, 1 if compute.use_gpu else 0)
    sharded = shard_missing(digests, uri, plan, pool, "images", verb="encode")
    encoded = [row | {"pixel_sha256": rows[row["case_id"]]["pixel_sha256"]} for row in sharded.rows]
    latents = build_index(encoded, {case_id: row["split"] for case_id, row in rows.items()})
    counts = add_index(attempt, latents, shards.root, folder)
    attempt.write("empty_prompt", "empty_prompt.npy", npy_bytes(_empty_prompt(encoding)))
    first = sharded.rows[0]
    return LatentFigures(
        **counts,
        num_new=sharded.num_new,
        scaling_factor=scaling_factor([row for row in latents.to_pylist() if row["split"] == "train"]),
        latent_shape=square_latent_shape(first, rows[first["case_id"]], config.data.resolution),
    )


def square_latent_shape(latents: Row, image: Row, resolution: int) -> tuple[int, int, int]:
    """Compute channels, height and width of the square's latents from the index rows of any image."""
    channels, height, _ = latents["latent_shape"]
    _, pixels = bucket_size(image["bucket"])
    side = resolution * height // pixels
    return channels, side, side


def scaling_factor(rows: Sequence[Row]) -> float:
    """Compute one over the standard deviation of latents drawn from the posteriors, over images, places, channels."""
    first = np.mean([row["latent_mean"] for row in rows])
    second = np.mean([row["latent_square"] for row in rows])
    return float(1 / np.sqrt(second - first**2))


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


@dataclass(slots=True)
class ShardEncoder:
    """Encodes the images of one shard after the other with networks that it loads with the first."""

    networks: tuple[Clip, Any] | None = None
    loaded: tuple[str, str] | None = None

    def __call__(self, text: str) -> tuple[list[Row], list[Problem]]:
        """Write the shard of an ``EncodingWork`` (JSON); return its index rows."""
        work = EncodingWork.model_validate_json(text)
        self._load(work.encoding)
        return write_shard(work.uri, self._samples(work)), []

    def _load(self, encoding: Encoding) -> None:
        import torch

        from unet_models.formats.clip_folder import Clip
        from unet_models.networks.autoencoder import load_autoencoder

        wanted = (encoding.clip_uri, encoding.autoencoder_uri)
        if self.loaded == wanted:
            return
        device = "cuda" if encoding.use_gpu else "cpu"
        torch.set_num_threads(encoding.threads)
        with (
            storage.local_folder(encoding.clip_uri) as clip,
            storage.local_folder(encoding.autoencoder_uri) as autoencoder,
        ):
            self.networks = Clip(clip, device), load_autoencoder(autoencoder, device)
        self.loaded = wanted

    def _samples(self, work: EncodingWork) -> Iterator[tuple[Row, dict[str, bytes]]]:
        from data_pipelines.loading.loader import ImageSamples
        from data_pipelines.shards.reader import ShardReader

        images = ImageSamples(ShardReader(index_table(work.rows), work.encoding.images_uri))
        for chosen in group_alike([row["bucket"] for row in work.rows], work.encoding.batch_size):
            yield from self._batch(work, images, chosen)

    def _batch(
        self, work: EncodingWork, images: ImageSamples, chosen: list[int]
    ) -> Iterator[tuple[Row, dict[str, bytes]]]:
        import torch

        from unet_models.precision import autocast
        from unet_models.training.objectives import scale_images

        assert self.networks is not None
        clip, autoencoder = self.networks
        pixels = scale_images(images.pixels(chosen).to(clip.device))
        with torch.no_grad(), autocast(work.encoding.precision, clip.device):
            moments = autoencoder.encode(pixels).latent_dist.parameters.float().cpu()
            states = clip.text_states([work.rows[i]["caption"] for i in chosen]).float().cpu()
        for i, moment, state in zip(chosen, moments, states, strict=True):
            mean, log_variance = (half.double() for half in moment.chunk(2))
            square = mean.square() + log_variance.clamp(-30, 20).exp()
            row = {
                "key": work.rows[i]["key"],
                "case_id": work.rows[i]["case_id"],
                "digest": work.digests[i],
                "latent_mean": float(mean.mean()),
                "latent_square": float(square.mean()),
                "latent_shape": list(mean.shape),
            }
            yield row, {MOMENTS: _half(moment), STATES: _half(state)}


def _half(values: Tensor) -> bytes:
    return npy_bytes(values.numpy().astype(np.float16))


def _empty_prompt(encoding: Encoding) -> np.ndarray:
    """Encode the empty prompt in the precision of the captions: (tokens, width) float16."""
    import torch

    from unet_models.formats.clip_folder import Clip
    from unet_models.precision import autocast

    with storage.local_folder(encoding.clip_uri) as folder, autocast(encoding.precision, torch.device("cpu")):
        states: np.ndarray = Clip(folder).text_states([""])[0].float().numpy().astype(np.float16)
    return states
