"""From an evaluation's pictures and scores to its report."""

from __future__ import annotations

import base64
from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from data_pipelines import storage
from data_pipelines.loading.loader import ImageSamples
from data_pipelines.loading.order import evenly_spaced
from data_pipelines.shards.reader import ShardReader
from data_pipelines.shards.index import read_table
from flows.pipelines.diffusion.config import DiffusionConfig
from flows.pipelines.diffusion.evaluation.drawing import Part, Result, png_bytes
from flows.pipelines.diffusion.evaluation.measures import Measured
from flows.pipelines.diffusion.model import Trained
from flows.pipelines.diffusion.evaluation.page import Picture, PictureRow, diffusion_report
from flows.stages.shards import read_problems, shards_uri
from flows.stages.attempt import Attempt
from flows.stages.record import Record
from flows.training.stage import curves_by_name, read_curves

TRAININGS = {"train_clip": "Text and image towers", "train_autoencoder": "Autoencoder", "train": "Diffusion U-Net"}
NUM_NEIGHBOURS = 3

Done = Sequence[tuple[Part, Result]]


def write_report(attempt: Attempt, config: DiffusionConfig, trained: Trained, done: Done, measured: Measured) -> None:
    """Write ``report.html`` and ``overlay.png`` (the grid of samples) into the attempt."""
    shards = trained.shards
    grid = _rows(done, "grid")
    html = diffusion_report(
        title=f"{config.registry.name}: {shards.figures['dataset']}",
        metrics=measured.metrics,
        protocol=measured.protocol | _sampling(config),
        pictures={
            "grid": grid,
            "sizes": _rows(done, "sizes", lambda part, i: f"{part.requests[i].width}x{part.requests[i].height}"),
            "sweep": _rows(done, "sweep", lambda part, i: f"guidance {part.requests[i].guidance_scale:g}"),
            "trace": _rows(done, "trace", lambda part, i: f"{i + 1}"),
            "neighbours": _neighbours(config, shards, attempt, measured),
        },
        curves={
            TRAININGS[record.stage]: curves_by_name(read_curves(record))
            for record in trained.records
            if "curves" in record.outputs
        },
        problems=read_problems(shards),
        left_out=shards.figures["left_out"],
        buckets=shards.figures["buckets"],
        config=config.model_dump(mode="json"),
        lineage={f"{record.stage} key": record.key for record in trained.records}
        | {
            "evaluate key": attempt.key,
            "training steps": str(trained.training.figures["step"]),
            "scaling factor": f"{trained.latents.figures['scaling_factor']:.5f}",
        },
    )
    attempt.write("report", "report.html", html.encode())
    if grid:
        attempt.write("overlay", "overlay.png", _mosaic([[p.png for p in row.pictures] for row in grid]))


def _rows(done: Done, name: str, caption: object = None) -> list[PictureRow]:
    """A row of pictures for each part of that name."""
    rows = []
    for part, result in done:
        if part.name != name:
            continue
        pictures = []
        for i, png in enumerate(result.pngs):
            seed = part.requests[i].seed if i < len(part.requests) else part.requests[0].seed
            text = caption(part, i) if callable(caption) else f"seed {seed}"
            pictures.append(Picture(base64.b64decode(png), text))
        rows.append(PictureRow(part.requests[0].prompt, pictures))
    return rows


def _neighbours(config: DiffusionConfig, shards: Record, attempt: Attempt, measured: Measured) -> list[PictureRow]:
    """Generated images, each beside the training images nearest to it in the first extractor's space."""
    from flows.pipelines.diffusion.evaluation.plan import real_rows
    from unet_models.metrics.manifold import nearest_neighbours

    extractor = next(iter(measured.generated), None)
    if extractor is None:
        return []
    index = read_table(shards.output("index"))
    captions = index["caption"].to_pylist()
    rows = real_rows(index["split"].to_pylist(), "train")
    real = ImageSamples(ShardReader(index, shards_uri(shards)), config.data.resolution)
    drawn = _Drawn(attempt.uri("samples"))
    chosen = evenly_spaced(range(len(drawn.prompts)), config.evaluate.num_shown)
    distances, places = nearest_neighbours(
        measured.generated[extractor][chosen], measured.train[extractor], min(NUM_NEIGHBOURS, len(rows))
    )
    shown = []
    for i, distance, nearest in zip(chosen, distances, places, strict=True):
        pictures = [Picture(drawn.png(i), "generated")]
        for d, place in zip(distance, nearest, strict=True):
            pixels = real.pixels([rows[place]])[0].permute(1, 2, 0).numpy()
            pictures.append(Picture(png_bytes(pixels), captions[rows[place]], f"distance {d:.3f}"))
        shown.append(PictureRow(drawn.prompts[i], pictures))
    return shown


class _Drawn:
    """The main set's images and prompts, in their order."""

    def __init__(self, uri: str) -> None:
        names = sorted(name for name in storage.list_names(uri) if name.endswith(".parquet"))
        index = pa.concat_tables([read_table(storage.join(uri, name)) for name in names])
        self.prompts: list[str] = index["prompt"].to_pylist()
        self.reader = ShardReader(index, uri)

    def png(self, i: int) -> bytes:
        """Image number ``i`` as a file."""
        return bytes(self.reader.read(i, "png"))


def _sampling(config: DiffusionConfig) -> dict[str, str]:
    spec = config.evaluate
    return {
        "sampler": f"{spec.sampler}, {spec.num_inference_steps} steps, guidance {spec.guidance_scale:g}",
        "precision": spec.precision,
        "seed": f"{spec.seed}; image i is a function of (seed, i)",
        "distances": "float64, against training images; /prior: noise decoded, /reconstruction: images given back",
    }


def _mosaic(rows: Sequence[Sequence[bytes]]) -> bytes:
    """Pictures of one size as one PNG."""
    import io

    from PIL import Image

    images = [[np.asarray(Image.open(io.BytesIO(png)).convert("RGB")) for png in row] for row in rows]
    return png_bytes(np.concatenate([np.concatenate(row, axis=1) for row in images]))
