"""From an evaluation's pictures and scores to its report."""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence

import pyarrow as pa

from data_pipelines import storage
from data_pipelines.images.changes import CHANGES
from data_pipelines.loading.loader import ImageSamples
from data_pipelines.loading.order import evenly_spaced
from data_pipelines.shards.index import read_table
from data_pipelines.shards.reader import ShardReader
from flows.pipelines.diffusion.config import DiffusionConfig
from flows.pipelines.diffusion.evaluation.measures import Measured
from flows.pipelines.diffusion.evaluation.page import DiffusionPage, diffusion_page
from flows.pipelines.diffusion.evaluation.parts import Part, Result
from flows.pipelines.diffusion.model import Trained
from flows.report.blocks import Picture, PictureRow
from flows.report.pictures import mosaic, png_bytes
from flows.stages.attempt import Attempt
from flows.stages.shards import read_problems, shards_uri
from flows.training.curves import curves_by_name, read_curves
from flows.training.figures import TrainingFigures

TRAININGS = {"train_clip": "Text and image towers", "train_autoencoder": "Autoencoder", "train": "Diffusion U-Net"}

Done = Sequence[tuple[Part, Result]]
"""Parts with their results."""
Caption = Callable[[Part, int], str]
"""Writes the caption of the image at an index of a part."""


def write_report(attempt: Attempt, config: DiffusionConfig, trained: Trained, done: Done, measured: Measured) -> None:
    """Write ``report.html`` and ``overlay.png`` (the grid of samples) as outputs of the attempt."""
    shards = trained.shards
    grid = _rows(done, "grid", _seed)
    page = DiffusionPage(
        title=f"{config.registry.name}: {shards.figures.dataset}",
        num_images=sum(part.num_images for part, _ in done if part.name == "generated"),
        metrics=measured.metrics,
        dimensions=measured.dimensions,
        protocol=measured.protocol | _sampling(config),
        pictures={
            "grid": grid,
            "sizes": _rows(done, "sizes", _size),
            "sweep": _rows(done, "sweep", _guidance),
            "trace": _rows(done, "trace", _number),
            "attention": _maps(done),
            "neighbours": _neighbours(config, trained, attempt, measured),
        },
        curves={
            TRAININGS[record.stage]: curves_by_name(read_curves(record))
            for record in trained.records
            if "curves" in record.outputs
        },
        times={
            TRAININGS[record.stage]: record.figures.times
            for record in trained.records
            if isinstance(record.figures, TrainingFigures) and record.figures.times
        },
        init={TRAININGS[trained.training.stage]: init} if (init := trained.training.figures.init) else {},
        problems=read_problems(shards),
        left_out=shards.figures.left_out,
        changes=_changes(trained),
        buckets=shards.figures.buckets,
        config=config.model_dump(mode="json"),
        lineage={f"{record.stage} key": record.key for record in trained.records}
        | {
            "evaluate key": attempt.key,
            "training steps": str(trained.training.figures.step),
            "scaling factor": _scaling_factor(trained),
            "split": f"{shards.figures.split}: {shards.figures.num_train} images trained on, "
            f"{shards.figures.num_val} held out",
        },
    )
    attempt.write("report", "report.html", diffusion_page(page).encode())
    if grid:
        attempt.write("overlay", "overlay.png", mosaic([[p.png for p in row.pictures] for row in grid]))


def _scaling_factor(trained: Trained) -> str:
    figures = trained.latents.figures
    shown = f"{figures.scaling_factor:.5f}"
    if figures.measured_scaling_factor in (None, figures.scaling_factor):
        return shown
    return f"{shown} as configured; measured on the training images: {figures.measured_scaling_factor:.5f}"


def _changes(trained: Trained) -> dict[str, int]:
    """Count what was changed in images and captions, by the sentence that says so."""
    latents = trained.latents.figures
    found = {CHANGES[name]: count for name, count in trained.shards.figures.changes.items()}
    if latents.num_cut_captions:
        found[f"with captions of more than {latents.caption_tokens} tokens: the rest is ignored"] = (
            latents.num_cut_captions
        )
    return found


def _rows(done: Done, name: str, caption: Caption) -> list[PictureRow]:
    """Build a row of pictures for each part of that name."""
    rows = []
    for part, result in done:
        if part.name == name:
            given = [Picture(base64.b64decode(result.given), "drawn from")] if result.given else []
            pictures = [Picture(base64.b64decode(png), caption(part, i)) for i, png in enumerate(result.pngs)]
            rows.append(PictureRow(_title(part), [*given, *pictures]))
    return rows


def _maps(done: Done) -> list[PictureRow]:
    """Build the rows of attention maps, a picture per token."""
    rows = []
    for part, result in done:
        for row in result.maps:
            pairs = zip(row.pngs, row.tokens, strict=True)
            pictures = [Picture(base64.b64decode(png), token) for png, token in pairs]
            rows.append(PictureRow(f"{_title(part)}: {row.name}", pictures))
    return rows


def _title(part: Part) -> str:
    """Write what the images of a part were asked for."""
    request = part.requests[0]
    names = [request.prompt, f"class {request.class_name}" if request.class_name else ""]
    return ", ".join(name for name in names if name) or ("an image" if part.given else "no condition")


def _seed(part: Part, index: int) -> str:
    return f"seed {part.requests[index].seed}"


def _size(part: Part, index: int) -> str:
    return f"{part.requests[index].width}x{part.requests[index].height}"


def _guidance(part: Part, index: int) -> str:
    return f"guidance {part.requests[index].guidance_scale:g}"


def _number(part: Part, index: int) -> str:
    return f"{index + 1}"


def _neighbours(config: DiffusionConfig, trained: Trained, attempt: Attempt, measured: Measured) -> list[PictureRow]:
    """Show generated images, each beside the training images nearest to it in the first extractor's space."""
    found = next((near for name, near in measured.neighbours.items() if name.startswith("generated/")), None)
    if found is None:
        return []
    shards = trained.shards
    index = read_table(shards.output("index"))
    real = ImageSamples(ShardReader(index, shards_uri(shards)), config.data.resolution)
    drawn = _Drawn(attempt.uri("samples"))
    chosen = evenly_spaced(range(len(drawn.prompts)), config.evaluate.num_shown)
    shown = []
    for i in chosen:
        pictures = [Picture(drawn.png(i), "generated")]
        for distance, row in zip(found.distances[i], found.rows[i].tolist(), strict=True):
            pixels = real.pixels([row])[0].permute(1, 2, 0).numpy()
            pictures.append(Picture(png_bytes(pixels), index["caption"][row].as_py(), f"distance {distance:.3f}"))
        shown.append(PictureRow(drawn.prompts[i], pictures))
    return shown


class _Drawn:
    """Images and prompts of the main set, in their order."""

    def __init__(self, uri: str) -> None:
        names = sorted(name for name in storage.list_names(uri) if name.endswith(".parquet"))
        index = pa.concat_tables([read_table(storage.join(uri, name)) for name in names])
        self.prompts: list[str] = index["prompt"].to_pylist()
        self.reader = ShardReader(index, uri)

    def png(self, i: int) -> bytes:
        """Return image number ``i`` as a PNG file."""
        return bytes(self.reader.read(i, "png"))


def _sampling(config: DiffusionConfig) -> dict[str, str]:
    spec = config.evaluate
    return {
        "sampler": f"{spec.sampler}, {spec.num_inference_steps} steps, guidance {spec.guidance_scale:g}",
        "precision": spec.precision,
        "seed": f"{spec.seed}; image i is a function of (seed, i)",
        "distances": "float64, against training images; /prior: noise decoded, /reconstruction: held-out images "
        "through the autoencoder",
    } | ({"selection": config.train.selection_remark} if config.train.selection_remark else {})
