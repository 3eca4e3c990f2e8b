"""The actor that degrades and restores held-out images, scores them, and keeps them."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from data_pipelines import storage
from data_pipelines.specs import Spec
from unet_models.specs.restoration import ImageBundle

if TYPE_CHECKING:
    from torch import Tensor

    from unet_models.restoration.held_out import HeldOut
    from unet_models.restoration.task import Task

ImageRow = dict[str, Any]
"""Row of ``images.parquet``: ``case_id``, ``row`` of the index, and metrics by name."""


class RestoringJob(Spec):
    """Settings that all images of one evaluation share; every actor reads them once."""

    bundle: ImageBundle
    weights_uri: str
    index_uri: str
    shards_uri: str
    restored_uri: str
    """Folder for the restored images."""
    seed: int
    """Seed of the degradation."""
    threads: int
    use_gpu: bool


class ImageScorer:
    """An actor that loads the model with its first images. (Constructor arguments would tie actors to the driver.)"""

    job: RestoringJob | None = None

    def load(self, job_uri: str) -> RestoringJob:
        """Read the job and its model."""
        import torch

        from data_pipelines.loading.loader import ImageSamples
        from data_pipelines.shards.reader import ShardReader
        from flows.pipelines.restoration.image_restorer import ImageRestorer

        job = RestoringJob.model_validate_json(storage.read_bytes(job_uri))
        torch.set_num_threads(job.threads)
        self.images = ImageSamples(ShardReader.from_uri(job.index_uri, job.shards_uri))
        with storage.local_file(job.weights_uri) as weights:
            self.restorer = ImageRestorer(job.bundle, weights, "cuda" if job.use_gpu else "cpu")
        return job

    def __call__(self, item: dict[str, Any]) -> dict[str, Any]:
        """Score the images in ``rows`` of the job at ``job``; the result holds their rows as JSON."""
        self.job = self.job or self.load(item["job"])
        return {"scores": json.dumps([self._score(row, self.job) for row in json.loads(item["rows"])])}

    def _score(self, row: int, job: RestoringJob) -> ImageRow:
        from flows.pipelines.restoration.image_restorer import to_bytes
        from flows.report.pictures import png_bytes
        from unet_models.restoration.held_out import degrade_held_out

        key = self.images.reader.key(row)
        image = self.images.pixels([row]).float() / 255
        sample = degrade_held_out(self.restorer.task, image, key, job.seed)
        restored = self.restorer.restore_inputs(sample.inputs)
        storage.write_bytes(storage.join(job.restored_uri, f"{key}.png"), png_bytes(to_bytes(restored)))
        return {"case_id": key, "row": row, **score_image(restored, sample, self.restorer.task)}


def score_image(restored: Tensor, sample: HeldOut, task: Task) -> Mapping[str, float]:
    """Compute the metrics of a restored image and of the baseline, in holes too where there are any; both are rounded
    to 8 bits, as files are."""
    from unet_models.metrics.images import colourfulness, psnr, similarity

    baseline = _rounded(task.baseline(sample.inputs)[0].clamp(0, 1))
    restored = _rounded(restored)
    image, region = sample.image, sample.region
    metrics = {}
    for suffix, shown in (("", restored), ("/baseline", baseline)):
        metrics[f"psnr{suffix}"] = psnr(shown, image)
        metrics[f"ssim{suffix}"] = similarity(shown, image)
        if region is not None:
            part = f"{suffix}_hole" if suffix else "/hole"
            metrics[f"psnr{part}"] = psnr(shown, image, region)
            metrics[f"ssim{part}"] = similarity(shown, image, region)
    metrics["colourfulness_error"] = colourfulness(restored) - colourfulness(image)
    return {name: value for name, value in metrics.items() if not math.isnan(value)}


def _rounded(image: Tensor) -> Tensor:
    return (image * 255).round() / 255
