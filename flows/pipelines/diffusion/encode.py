"""Stage ``encode``: images and captions -> latent means and log-variances, and text states, in shards beside them.

What is kept is unscaled and undropped: the scaling factor is measured here and applied in training, and so is caption
dropout. A sample is encoded once for each pair of encoders; a run that broke off goes on with the next shard.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from data_pipelines import storage
from data_pipelines.images.buckets import bucket_size
from data_pipelines.digests import digest_of
from data_pipelines.errors import Problem
from data_pipelines.shards.incremental import Actors, Task, group_by_size, shard_missing
from data_pipelines.shards.index import Row, build_index
from data_pipelines.shards.index import IMAGE_PARTS, MOMENTS, STATES
from data_pipelines.loading.loader import ImageSamples
from data_pipelines.loading.order import batches_alike
from data_pipelines.shards.reader import ShardReader
from data_pipelines.shards.writer import npy_bytes, shard_name, write_shard
from data_pipelines.shards.index import read_table
from data_pipelines.specs import Spec
from flows.cluster.connection import ensure_workers
from flows.pipelines.diffusion.config import DiffusionConfig
from flows.pipelines.diffusion.encoders.stages import network_folder
from flows.stages.shards import add_index, shards_are_there, shards_uri
from flows.stages.attempt import Attempt
from flows.stages.record import Record
from flows.stages.stage import Stage

FORMAT = 1
"""Raise when latents change for the same images and encoders."""
MAX_PER_SHARD = 1000


def encode_stage(config: DiffusionConfig, shards: Record, clip: Record, autoencoder: Record) -> Stage:
    """Plan the stage: its key holds the images' and the encoders' digests."""
    identity = {"precision": config.encode.precision, "format": FORMAT}

    def compute(attempt: Attempt) -> None:
        _encode(config, shards, clip, autoencoder, attempt)

    return Stage("encode", identity, (shards, clip, autoencoder), compute, still_holds=shards_are_there)


class Encoding(Spec):
    """How every shard is encoded."""

    images_uri: str
    clip_uri: str
    autoencoder_uri: str
    batch_size: int
    precision: str
    threads: int
    use_gpu: bool


class Work(Spec):
    """One shard of latents to be written; travels as JSON."""

    encoding: Encoding
    uri: str
    rows: list[Row]
    """Index rows of the images."""
    digests: list[str]


def _encode(config: DiffusionConfig, shards: Record, clip: Record, autoencoder: Record, attempt: Attempt) -> None:
    compute = config.compute
    ensure_workers(compute)
    rows = {row["case_id"]: row for row in read_table(shards.output("index")).to_pylist()}
    encoders = digest_of([FORMAT, clip.digest, autoencoder.digest, config.encode.precision])
    digests = {case_id: digest_of([encoders, row["digest"]]) for case_id, row in rows.items()}
    folder = f"latents/{encoders[:12]}"
    uri = storage.join(shards.root, folder)
    encoding = _encoding(config, shards, clip, autoencoder)

    def plan(missing: list[str]) -> list[Task]:
        return _plan([rows[case_id] for case_id in missing], digests, uri, encoding)

    pool = Actors(ShardEncoder, compute.most_workers, compute.threads_per_worker, 1 if compute.use_gpu else 0)
    sharded = shard_missing(digests, uri, plan, pool, "images", verb="encode")
    latents = build_index(sharded.rows, {case_id: row["split"] for case_id, row in rows.items()})
    add_index(attempt, latents, shards.root, folder)
    attempt.write("empty_prompt", "empty_prompt.npy", npy_bytes(_empty_prompt(encoding)))
    attempt.figures |= {
        "scaling_factor": scaling_factor([row for row in latents.to_pylist() if row["split"] == "train"]),
        "latent_shape": square_latent_shape(sharded.rows[0], rows[sharded.rows[0]["case_id"]], config.data.resolution),
        "num_new": sharded.num_new,
    }


def square_latent_shape(latents: Row, image: Row, resolution: int) -> list[int]:
    """Channels, height and width of the latents of the square, from what became of any image."""
    channels, height, _ = latents["latent_shape"]
    _, pixels = bucket_size(image["bucket"])
    return [channels, *[resolution * height // pixels] * 2]


def _encoding(config: DiffusionConfig, shards: Record, clip: Record, autoencoder: Record) -> Encoding:
    return Encoding(
        images_uri=shards_uri(shards),
        clip_uri=network_folder(clip),
        autoencoder_uri=network_folder(autoencoder),
        batch_size=config.encode.batch_size,
        precision=config.encode.precision,
        threads=config.compute.threads_per_worker,
        use_gpu=config.compute.use_gpu,
    )


def _plan(rows: list[Row], digests: Mapping[str, str], shards_uri: str, encoding: Encoding) -> list[Task]:
    """Images that lie together are encoded together. ``digests`` is case_id -> that of its latents."""
    tasks = []
    ordered = sorted(rows, key=lambda row: row["shard"])
    for group in group_by_size(ordered, lambda _: 0.0, 1.0, MAX_PER_SHARD):
        names = [digests[row["case_id"]] for row in group]
        kept = [{name: value for name, value in row.items() if value is not None} for row in group]
        work = Work(encoding=encoding, uri=storage.join(shards_uri, shard_name(names)), rows=kept, digests=names)
        tasks.append(Task(work.model_dump_json(), len(group)))
    return tasks


def scaling_factor(rows: list[Row]) -> float:
    """One over the standard deviation of latents drawn from the posteriors, over images, places and channels."""
    first = np.mean([row["latent_mean"] for row in rows])
    second = np.mean([row["latent_square"] for row in rows])
    return float(1 / np.sqrt(second - first**2))


@dataclass(slots=True)
class ShardEncoder:
    """Encodes the images of one shard after the other, by networks that it loads with the first."""

    networks: tuple[Any, Any] | None = None
    loaded: tuple[str, str] | None = None

    def __call__(self, text: str) -> tuple[list[Row], list[Problem]]:
        """Write the shard; returns its index rows."""
        work = Work.model_validate_json(text)
        self._load(work.encoding)
        return write_shard(work.uri, self._samples(work)), []

    def _load(self, encoding: Encoding) -> None:
        import torch

        from unet_models.networks.autoencoder import load_autoencoder
        from unet_models.formats.clip_folder import Clip

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

    def _samples(self, work: Work) -> Iterator[tuple[Row, dict[str, bytes]]]:
        import pyarrow as pa

        columns = ["key", "shard", *(f"{what}:{part}" for part in IMAGE_PARTS for what in ("offset", "size"))]
        present = {name for row in work.rows for name in row}
        table = pa.table({name: [row.get(name) for row in work.rows] for name in columns if name in present})
        images = ImageSamples(ShardReader(table, work.encoding.images_uri))
        for chosen in batches_alike([row["bucket"] for row in work.rows], work.encoding.batch_size):
            yield from self._batch(work, images, chosen)

    def _batch(self, work: Work, images: ImageSamples, chosen: list[int]) -> Iterator[tuple[Row, dict[str, bytes]]]:
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


def _half(values: Any) -> bytes:
    return npy_bytes(values.numpy().astype(np.float16))


def _empty_prompt(encoding: Encoding) -> np.ndarray:
    """(tokens, width) states of the empty prompt, in the precision of the captions'."""
    import torch

    from unet_models.formats.clip_folder import Clip
    from unet_models.precision import autocast

    with storage.local_folder(encoding.clip_uri) as folder, autocast(encoding.precision, torch.device("cpu")):
        states: np.ndarray = Clip(folder).text_states([""])[0].float().numpy().astype(np.float16)
    return states
