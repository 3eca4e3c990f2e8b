"""The actor that degrades and restores held-out images, scores them, and keeps them."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any, NamedTuple

from data_pipelines import storage
from data_pipelines.digests import digest_of
from data_pipelines.specs import Spec
from unet_models.specs.restoration import ImageBundle

if TYPE_CHECKING:
    from torch import Tensor

MAX_STEM = 200
"""Bytes of the name of a file, without its ending; file systems know 255."""
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
        """Score the images in ``rows`` of the job at ``job``; the result holds their rows as JSON.

        With ``is_clip`` they are the frames of one clip, in order.
        """
        self.job = self.job or self.load(item["job"])
        found, previous = [], None
        for row in json.loads(item["rows"]):
            images = self._restore(row, self.job)
            scores = score_image(images)
            if item["is_clip"] and previous is not None:
                scores |= score_change(previous, images)
            found.append({"case_id": self.images.reader.key(row), "row": row, **scores})
            previous = images
        return {"scores": json.dumps(found)}

    def _restore(self, row: int, job: RestoringJob) -> Restored:
        """Degrade and restore an image, and keep it."""
        from flows.pipelines.restoration.image_restorer import to_bytes
        from flows.report.pictures import png_bytes
        from unet_models.restoration.held_out import degrade_held_out

        key = self.images.reader.key(row)
        image = self.images.pixels([row]).float() / 255
        sample = degrade_held_out(self.restorer.task, image, key, job.seed)
        restored = self.restorer.restore_inputs(sample.inputs)
        storage.write_bytes(storage.join(job.restored_uri, f"{file_stem(key)}.png"), png_bytes(to_bytes(restored)))
        baseline = self.restorer.task.baseline(sample.inputs)[0].clamp(0, 1)
        return Restored(_rounded(restored), _rounded(baseline), sample.image, sample.region)


def file_stem(key: str) -> str:
    """Return the name of a file for a key, which holds all folders of an image: where it is too long, its beginning
    and a digest."""
    if len(key.encode()) <= MAX_STEM:
        return key
    beginning = key.encode()[: MAX_STEM - 17].decode(errors="ignore")
    return f"{beginning}-{digest_of(key)[:16]}"


class Restored(NamedTuple):
    """An image (3, H, W) in 0..1 as restored, by the baseline, and as it is; rounded to 8 bits, as files are."""

    restored: Tensor
    baseline: Tensor
    truth: Tensor
    region: Tensor | None
    """1 in holes; None: the task has none."""


def score_image(images: Restored) -> dict[str, float]:
    """Compute the metrics of a restored image and of the baseline, in holes too where there are any."""
    from unet_models.metrics.images import colourfulness, psnr, similarity

    restored, baseline, image, region = images
    metrics = {}
    for suffix, shown in (("", restored), ("/baseline", baseline)):
        metrics[f"psnr{suffix}"] = psnr(shown, image)
        metrics[f"ssim{suffix}"] = similarity(shown, image)
        metrics[f"colourfulness_error{suffix}"] = colourfulness(shown) - colourfulness(image)
        if region is not None:
            part = f"{suffix}_hole" if suffix else "/hole"
            metrics[f"psnr{part}"] = psnr(shown, image, region)
            metrics[f"ssim{part}"] = similarity(shown, image, region)
    return {name: value for name, value in metrics.items() if not math.isnan(value)}


def score_change(previous: Restored, images: Restored) -> dict[str, float]:
    """Compare the change from one frame to the next with the true one; empty where frames differ in size."""
    from unet_models.metrics.images import temporal_error

    if previous.truth.shape != images.truth.shape:
        return {}
    truths = previous.truth, images.truth
    return {
        "temporal_error": temporal_error((previous.restored, images.restored), truths),
        "temporal_error/baseline": temporal_error((previous.baseline, images.baseline), truths),
    }


def _rounded(image: Tensor) -> Tensor:
    return (image * 255).round() / 255
