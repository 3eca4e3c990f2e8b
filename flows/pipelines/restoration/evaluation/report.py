"""From an evaluation's scores and restored images to its report."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from data_pipelines import storage
from data_pipelines.images.changes import CHANGES
from data_pipelines.loading.loader import ImageSamples
from data_pipelines.loading.order import evenly_spaced
from data_pipelines.shards.reader import ShardReader
from flows.metrics import METRICS
from flows.pipelines.restoration.config import RestorationConfig
from flows.pipelines.restoration.evaluation.page import RestorationPage, restoration_page
from flows.pipelines.restoration.evaluation.scoring import ImageRow, file_stem
from flows.pipelines.restoration.image_restorer import to_bytes
from flows.report.blocks import Picture, PictureRow
from flows.report.pictures import mosaic, png_bytes
from flows.report.values import value_text
from flows.sharding.images import ImageShardFigures
from flows.stages.attempt import Attempt
from flows.stages.record import Record
from flows.stages.shards import read_problems, shards_uri
from flows.training.curves import curves_by_name, read_curves
from flows.training.figures import TrainingFigures
from unet_models.metrics.summary import MetricSummary
from unet_models.restoration.build import build_task
from unet_models.restoration.held_out import degrade_held_out

MAX_SHOWN_SIDE = 512
"""Pixels of an image in the report, at most: of larger ones the middle is shown."""


def write_report(
    attempt: Attempt,
    config: RestorationConfig,
    shards: Record[ImageShardFigures],
    training: Record[TrainingFigures],
    summaries: Sequence[MetricSummary],
    rows: Sequence[ImageRow],
) -> None:
    """Write ``report.html`` and ``overlay.png`` (the strips) as outputs of the attempt."""
    metric = config.main_metric
    pictures = _strips(attempt, config, shards, choose_images(rows, metric, config.evaluate.num_shown), metric)
    page = RestorationPage(
        title=f"{config.registry.name}: {shards.figures.dataset}",
        task=config.task.name.replace("_", " ").capitalize(),
        metric=metric,
        summaries=summaries,
        rows=rows,
        curves=curves_by_name(read_curves(training)),
        remark=config.train.selection_remark,
        pictures=pictures,
        problems=read_problems(shards),
        left_out=shards.figures.left_out,
        changes={CHANGES[name]: count for name, count in shards.figures.changes.items()},
        config=config.model_dump(mode="json"),
        lineage=_lineage(attempt, shards, training),
        times=training.figures.times,
        init=training.figures.init,
    )
    attempt.write("report", "report.html", restoration_page(page).encode())
    if pictures:
        attempt.write("overlay", "overlay.png", mosaic([[p.png for p in row.pictures] for row in pictures]))


def choose_images(rows: Sequence[ImageRow], metric: str, num_others: int) -> dict[str, ImageRow]:
    """Choose the worst, the median and the best image, and others evenly spaced; title to row, each image once."""
    ranked = sorted((row for row in rows if metric in row), key=lambda row: (row[metric], row["case_id"]))
    if not ranked:
        return {}
    named = [("Worst", ranked[0]), ("Median", ranked[len(ranked) // 2]), ("Best", ranked[-1])]
    named += [("Image", row) for row in evenly_spaced(rows, num_others)]
    by_id: dict[str, tuple[str, ImageRow]] = {}
    for title, row in named:
        by_id.setdefault(row["case_id"], (title, row))
    return {f"{title}: {case_id}": row for case_id, (title, row) in by_id.items()}


def _lineage(attempt: Attempt, shards: Record[ImageShardFigures], training: Record[TrainingFigures]) -> dict[str, str]:
    return {
        "shard key": shards.key,
        "train key": training.key,
        "evaluate key": attempt.key,
        "training steps": str(training.figures.step),
        "split": f"{shards.figures.split}: {shards.figures.num_train} images trained on, "
        f"{shards.figures.num_val} held out",
    }


def _strips(
    attempt: Attempt,
    config: RestorationConfig,
    shards: Record[ImageShardFigures],
    chosen: dict[str, ImageRow],
    metric: str,
) -> list[PictureRow]:
    images = ImageSamples(ShardReader.from_uri(shards.output("index"), shards_uri(shards)))
    return [draw_strip(attempt, config, images, title, row, metric) for title, row in chosen.items()]


def draw_strip(
    attempt: Attempt, config: RestorationConfig, images: ImageSamples, title: str, row: ImageRow, metric: str
) -> PictureRow:
    """Draw input, baseline, restored and true image; the degradation is that of the scores."""
    task = build_task(config.task)
    image = images.pixels([row["row"]]).float() / 255
    sample = degrade_held_out(task, image, row["case_id"], config.evaluate.seed)
    restored = _read_png(attempt.uri("restored", f"{file_stem(row['case_id'])}.png"))
    shown = {
        "input": to_bytes(_visible(sample.inputs[0])),
        "baseline": to_bytes(task.baseline(sample.inputs)[0].clamp(0, 1)),
        "restored": restored,
        "truth": to_bytes(sample.image),
    }
    score = f"{METRICS[metric].title} {value_text(METRICS[metric], row[metric])} {METRICS[metric].unit}"
    notes = {"restored": score.strip()}
    size = restored.shape[0]
    return PictureRow(
        title,
        [
            Picture(png_bytes(_middle(each, MAX_SHOWN_SIDE * each.shape[0] // size)), name, notes.get(name, ""))
            for name, each in shown.items()
        ],
    )


def _visible(inputs: torch.Tensor) -> torch.Tensor:
    """Return an input as RGB: the first three channels, or the only one as grey."""
    return inputs[:3].expand(3, -1, -1).clamp(0, 1)


def _middle(image: np.ndarray, side: int) -> np.ndarray:
    """Cut out the middle, ``side`` pixels at most: fewer of an input that is smaller than what is restored of it."""
    top, left = (max(size - side, 0) // 2 for size in image.shape[:2])
    return image[top : top + side, left : left + side]


def _read_png(uri: str) -> np.ndarray:
    from data_pipelines.loading.loader import decode_rgb

    return decode_rgb(memoryview(storage.read_bytes(uri)))
