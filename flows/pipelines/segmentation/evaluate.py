"""Stage ``evaluate``: checkpoint -> scores of every held-out case, pictures, and a report that stands alone."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np

from data_pipelines import storage
from data_pipelines.progress import track
from data_pipelines.shards.index import read_table, write_table
from flows.cluster.actors import iter_on_actors
from flows.pipelines.segmentation.config import SegmentationConfig
from flows.stages.shards import shards_uri
from flows.stages.attempt import Attempt
from flows.stages.record import Record
from flows.stages.stage import Stage
from unet_models.specs.segmentation import PredictSpec


def evaluate_stage(config: SegmentationConfig, shards: Record, training: Record) -> Stage:
    """Plan the stage: its key holds the weights', the shards' and the settings' identity."""

    def compute(attempt: Attempt) -> None:
        _evaluate(config, shards, training, attempt)

    return Stage("evaluate", config.evaluate.model_dump(mode="json"), (shards, training), compute)


def build_bundle(config: SegmentationConfig, shards: Record) -> dict[str, Any]:
    """JSON of ``flows.segmentation.segmenter.Bundle``: what the weights need beside them."""
    spacing = shards.figures["spacing"]
    return {
        "model": config.train.model.model_dump(mode="json"),
        "classes": shards.figures["classes"],
        "channels": shards.figures["channels"],
        "patch_size": config.train.patch_size,
        "preprocess": config.data.preprocess.model_dump(mode="json"),
        "spacing": spacing,
        "predict": config.evaluate.model_dump(mode="json", include=set(PredictSpec.model_fields)),
    }


def _evaluate(config: SegmentationConfig, shards: Record, training: Record, attempt: Attempt) -> None:
    from flows.pipelines.segmentation.evaluation.report import write_report
    from unet_models.metrics.summary import summarise

    index = read_table(shards.output("index"))
    rows = np.flatnonzero(np.array(index["split"].to_pylist()) == "val")
    if not len(rows):
        raise ValueError("the split holds no validation cases: nothing to evaluate (data.fold, data.splits)")
    job = {
        "bundle": build_bundle(config, shards),
        "weights_uri": training.output("weights"),
        "index_uri": shards.output("index"),
        "shards_uri": shards_uri(shards),
        "predictions_uri": attempt.uri("predictions"),
        "tolerance_mm": config.evaluate.tolerance_mm,
        "threads": config.compute.threads_per_worker,
        "use_gpu": config.compute.use_gpu,
    }
    storage.write_bytes(attempt.uri("job.json"), json.dumps(job).encode())
    case_rows = sorted(
        _score_all(attempt.uri("job.json"), [int(row) for row in rows], config), key=lambda row: row["case_id"]
    )
    write_table(attempt.uri("cases.parquet"), case_rows)
    attempt.add("cases", attempt.uri("cases.parquet"))
    summaries = summarise(case_rows)
    attempt.figures["metrics"] = _flat_metrics(summaries)
    attempt.figures["num_cases"] = len(rows)
    attempt.figures["predictions"] = f"{attempt.name}/predictions"
    write_report(attempt, config, shards, training, summaries, case_rows)


def _score_all(job_uri: str, rows: list[int], config: SegmentationConfig) -> Iterator[dict[str, Any]]:
    """The scores of every case, a row per class."""
    items = [{"row": row, "job": job_uri} for row in rows]
    finished = ((1, result) for result in iter_on_actors(CaseScorer, items, config.compute))
    for result in track(finished, "evaluate", "cases", len(rows)):
        yield from json.loads(result["scores"])


class CaseScorer:
    """An actor that predicts cases, scores them in their original geometry and keeps the label maps."""

    job: dict[str, Any] | None = None

    def load(self, job_uri: str) -> None:
        """Read the job and its model, with the first case. (Constructor arguments would tie actors to the driver.)"""
        import torch

        from data_pipelines.shards.reader import ShardReader
        from flows.pipelines.segmentation.bundle import Bundle
        from flows.pipelines.segmentation.segmenter import Segmenter

        job: dict[str, Any] = json.loads(storage.read_bytes(job_uri))
        torch.set_num_threads(job["threads"])
        self.reader = ShardReader.from_uri(job["index_uri"], job["shards_uri"])
        with storage.local_file(job["weights_uri"]) as weights:
            device = "cuda" if job["use_gpu"] else "cpu"
            self.segmenter = Segmenter(Bundle.model_validate(job["bundle"]), weights, device)
        self.job = job

    def __call__(self, item: dict[str, Any]) -> dict[str, Any]:
        """Scores of one case, a row per class, as JSON."""
        from data_pipelines.volumes.preprocess import Preprocessing
        from data_pipelines.volumes.formats.base import Geometry
        from data_pipelines.volumes.formats.nifti import write_nifti
        from unet_models.metrics.summary import score_case

        if self.job is None:
            self.load(item["job"])
        assert self.job is not None
        row = int(item["row"])
        geometry = json.loads(bytes(self.reader.read(row, "geometry.json")))
        affine = geometry.pop("affine")
        done = Preprocessing.from_json(geometry)
        labels = self.segmenter.segment_prepared(self.reader.array(row, "image.npy"), done)
        truth = stored_truth(self.reader, row, done)
        scores = score_case(labels, truth, self.segmenter.bundle.classes, done.stored_spacing, self.job["tolerance_mm"])
        key = self.reader.key(row)
        placed = Geometry(done.stored_shape, done.stored_spacing, affine and tuple(map(tuple, affine)))
        with storage.local_copy_of(storage.join(self.job["predictions_uri"], f"{key}.nii.gz")) as path:
            named = path.with_name(path.name + ".nii.gz")  # the writer goes by the suffix
            write_nifti(named, labels, placed.affine_array())
            named.replace(path)
        return {
            "scores": json.dumps(
                [{"case_id": key, "row": row, "class_name": name, **values} for name, values in scores.items()]
            )
        }


def stored_truth(reader: Any, row: int, done: Any) -> np.ndarray:
    """The reference label map as stored: kept beside the sample where preprocessing could not give it back."""
    from data_pipelines.volumes.preprocess import restore_mask

    if reader.has(row, "truth.npy"):
        return reader.array(row, "truth.npy")
    return restore_mask(reader.array(row, "mask.npy"), done)


def _flat_metrics(summaries: list[Any]) -> dict[str, float]:
    """``dice`` for the foreground mean, ``dice/<class>`` for a class; undefined ones are left out."""
    return {
        s.metric if s.class_name == "mean" else f"{s.metric}/{s.class_name}": s.mean
        for s in summaries
        if np.isfinite(s.mean)
    }
