"""The actor that predicts held-out cases, scores them in their original geometry and keeps the label maps."""

from __future__ import annotations

from typing import Any

import numpy as np
from pydantic import ConfigDict, TypeAdapter

from data_pipelines import storage
from data_pipelines.shards.index import GEOMETRY, IMAGE, MASK, TRUTH
from data_pipelines.shards.reader import ShardReader
from data_pipelines.specs import Spec
from data_pipelines.volumes.preprocess import Preprocessing, StoredGeometry, restore_mask
from flows.pipelines.segmentation.bundle import Bundle


class ScoringJob(Spec):
    """Settings that all cases of one evaluation share; every actor reads them once."""

    bundle: Bundle
    weights_uri: str
    index_uri: str
    shards_uri: str
    raw_images: dict[str, tuple[str, ...]] | None
    """Key to the files of the case, where the model does not take the shards' preprocessed images."""
    predictions_uri: str
    """Folder for the label maps."""
    tolerance_mm: float
    """Tolerance of the surface Dice."""
    threads: int
    use_gpu: bool


class ClassScore(Spec):
    """Scores of one class in one case; NaN where a metric is undefined."""

    model_config = ConfigDict(ser_json_inf_nan="constants")
    case_id: str
    row: int
    """Row of the index."""
    class_name: str
    metrics: dict[str, float]

    def to_row(self) -> dict[str, Any]:
        """Flatten to a row of ``cases.parquet``."""
        return {"case_id": self.case_id, "row": self.row, "class_name": self.class_name, **self.metrics}


_SCORES = TypeAdapter(list[ClassScore])


def read_scores(item: dict[str, Any]) -> list[ClassScore]:
    """Read what ``CaseScorer`` returned for one case."""
    return _SCORES.validate_json(item["scores"])


class CaseScorer:
    """An actor that loads the model with its first case. (Constructor arguments would tie actors to the driver.)"""

    job: ScoringJob | None = None

    def load(self, job_uri: str) -> ScoringJob:
        """Read the job and its model."""
        import torch

        from flows.pipelines.segmentation.segmenter import Segmenter

        job = ScoringJob.model_validate_json(storage.read_bytes(job_uri))
        torch.set_num_threads(job.threads)
        self.reader = ShardReader.from_uri(job.index_uri, job.shards_uri)
        with storage.local_file(job.weights_uri) as weights:
            self.segmenter = Segmenter(job.bundle, weights, "cuda" if job.use_gpu else "cpu")
        return job

    def __call__(self, item: dict[str, Any]) -> dict[str, Any]:
        """Score the case in ``row`` of the job at ``job``; the result holds the JSON of its ``ClassScore`` list."""
        from data_pipelines.volumes.formats.nifti import write_nifti
        from unet_models.metrics.summary import score_case

        self.job = job = self.job or self.load(item["job"])
        row = int(item["row"])
        stored = read_stored_geometry(self.reader, row)
        labels = self._segment(row, stored)
        truth = stored_truth(self.reader, row, stored)
        spacing = stored.stored_spacing
        scores = score_case(labels, truth, self.segmenter.bundle.classes, spacing, job.tolerance_mm)
        key = self.reader.key(row)
        with storage.local_copy_of(storage.join(job.predictions_uri, f"{key}.nii.gz")) as path:
            write_nifti(path, labels, stored.geometry.affine_array())
        found = [ClassScore(case_id=key, row=row, class_name=name, metrics=values) for name, values in scores.items()]
        return {"scores": _SCORES.dump_json(found).decode()}

    def _segment(self, row: int, stored: StoredGeometry) -> np.ndarray:
        """Predict the label map (*stored) of a case, from its shard or from its files."""
        assert self.job is not None
        if self.job.raw_images is None:
            return self.segmenter.segment_prepared(self.reader.array(row, IMAGE), stored)
        return self.segmenter.segment_files(self.job.raw_images[self.reader.key(row)])[0]


def read_stored_geometry(reader: ShardReader, row: int) -> StoredGeometry:
    """Read the stored geometry and the preprocessing of a sample."""
    return StoredGeometry.model_validate_json(bytes(reader.read(row, GEOMETRY)))


def stored_truth(reader: ShardReader, row: int, done: Preprocessing) -> np.ndarray:
    """Return the reference label map as stored: a part of its own where preprocessing could not restore it."""
    if reader.has(row, TRUTH):
        return reader.array(row, TRUTH)
    return restore_mask(reader.array(row, MASK), done)
