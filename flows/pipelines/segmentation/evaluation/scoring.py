"""The actor that predicts held-out cases, scores them in their original geometry and keeps the label maps."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import ConfigDict, Field, TypeAdapter

from data_pipelines import storage
from data_pipelines.shards.index import GEOMETRY, IMAGE, MASK, TRUTH
from data_pipelines.shards.reader import ShardReader
from data_pipelines.specs import Spec
from data_pipelines.volumes.modalities import IMAGE_ALONE, Modalities
from data_pipelines.volumes.preprocess import Prepared, Preprocessing, StoredGeometry, restore_mask
from flows.pipelines.segmentation.bundle import Bundle
from flows.pipelines.segmentation.evaluation.exits import ExitScore, compare_exits
from flows.pipelines.segmentation.evaluation.label_maps import LabelMap, write_map
from flows.pipelines.segmentation.reading import Sample

if TYPE_CHECKING:
    from data_pipelines.volumes.restore import Watch


class ScoringJob(Spec):
    """Settings that all cases of one evaluation share; every actor reads them once."""

    bundle: Bundle
    weights_uri: str
    index_uri: str
    shards_uri: str
    raw_images: dict[str, tuple[str, ...]] | None
    """Key to the files of the case, where the model does not take the shards' preprocessed images."""
    partner_uris: tuple[str, str] | None = None
    """Index and shards of the images as the bundle's partner takes them."""
    predictions_uri: str
    """Folder for the label maps."""
    tolerance_mm: float
    """Tolerance of the surface Dice."""
    exit_thresholds: tuple[float, ...] = ()
    """Thresholds at which early exits are compared."""
    threads: int
    use_gpu: bool
    voxels_per_stratum: int = 0
    """Voxels of each class and case from which calibration is fitted, and as many unsure ones; 0: none."""
    subsets: tuple[str, ...] = ()
    """Subsets of the modalities, such as ``image,text``, with which each case is segmented once more."""


class ClassScore(Spec):
    """Scores of one class in one case; NaN where a metric is undefined."""

    model_config = ConfigDict(ser_json_inf_nan="constants")
    case_id: str
    row: int
    """Row of the index."""
    class_name: str
    metrics: dict[str, float]
    subset_dice: dict[str, float] = Field(default={})
    """Dice with a subset of the modalities alone, by its name."""

    @classmethod
    def of_row(cls, row: dict[str, Any]) -> ClassScore:
        """Build the scores from a row of ``cases.parquet``, without those of subsets of the modalities."""
        own = {name: row[name] for name in ("case_id", "row", "class_name")}
        return cls(**own, metrics={k: v for k, v in row.items() if k not in own and not k.startswith("dice[")})

    def to_row(self) -> dict[str, Any]:
        """Flatten to a row of ``cases.parquet``."""
        subsets = {f"dice[{name}]": value for name, value in self.subset_dice.items()}
        return {"case_id": self.case_id, "row": self.row, "class_name": self.class_name, **self.metrics, **subsets}


_SCORES, _EXITS = TypeAdapter(list[ClassScore]), TypeAdapter(list[ExitScore])


def read_label_map(item: dict[str, Any]) -> LabelMap:
    """Read where ``CaseScorer`` has written the label map of one case."""
    return LabelMap.model_validate_json(item["label_map"])


def read_scores(item: dict[str, Any]) -> list[ClassScore]:
    """Read what ``CaseScorer`` returned for one case."""
    return _SCORES.validate_json(item["scores"])


def subset_dice(scores: Sequence[ClassScore]) -> dict[str, float]:
    """Average the Dice with each subset of the modalities over cases, then over classes; empty where there are none."""
    found: dict[str, dict[str, list[float]]] = {}
    for score in scores:
        for subset, dice in score.subset_dice.items():
            if not math.isnan(dice):
                found.setdefault(subset, {}).setdefault(score.class_name, []).append(dice)
    return {
        subset: float(np.mean([np.mean(values) for values in classes.values()])) for subset, classes in found.items()
    }


def read_exits(item: dict[str, Any]) -> list[ExitScore]:
    """Read the comparison of early exits that ``CaseScorer`` returned for one case; empty where none was asked for."""
    return _EXITS.validate_json(item["exits"])


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
        self.partner = ShardReader.from_uri(*job.partner_uris) if job.partner_uris else None
        with storage.local_file(job.weights_uri) as weights:
            self.segmenter = Segmenter(job.bundle, weights, "cuda" if job.use_gpu else "cpu")
        return job

    def __call__(self, item: dict[str, Any]) -> dict[str, Any]:
        """Score the case ``case_id`` in ``row`` of the job at ``job``; scores are JSON of a ``ClassScore`` list."""
        from flows.pipelines.segmentation.calibration import VoxelSampler
        from unet_models.metrics.summary import score_case

        self.job = job = self.job or self.load(item["job"])
        row = int(item["row"])
        stored = read_stored_geometry(self.reader, row)
        given = Modalities.stored(self.reader, row) if self.segmenter.bundle.model.fusion else IMAGE_ALONE
        labels, truth = self.segmenter.bundle.labels, stored_truth(self.reader, row, stored)
        sampler = VoxelSampler(truth, stored, labels, job.voxels_per_stratum, row) if job.voxels_per_stratum else None
        started = time.perf_counter()
        prediction = self._segment(row, stored, given, sampler)
        seconds = time.perf_counter() - started
        spacing = stored.stored_spacing
        scores = score_case(prediction, truth, labels.targets, labels.num_classes, spacing, job.tolerance_mm)
        label_map = write_map(job.predictions_uri, item["case_id"], prediction, labels, stored)
        subsets = {each: self._dice(row, stored, given.only(each.split(",")), truth) for each in job.subsets}
        found = [
            ClassScore(
                case_id=item["case_id"],
                row=row,
                class_name=name,
                metrics=values,
                subset_dice={subset: dice[name] for subset, dice in subsets.items()},
            )
            for name, values in scores.items()
        ]
        return {
            "row": row,
            "seconds": seconds,
            "label_map": label_map.model_dump_json(),
            "scores": _SCORES.dump_json(found).decode(),
            "exits": _EXITS.dump_json(self._exits(row)).decode(),
            "voxels": sampler.finish() if sampler is not None else b"",
        }

    def _exits(self, row: int) -> list[ExitScore]:
        """Compare thresholds of early exits on a case."""
        if self.job is None or not self.job.exit_thresholds:
            return []
        image, mask = self.reader.array(row, IMAGE), self.reader.array(row, MASK)
        return list(compare_exits(self.segmenter, image, mask, self.job.exit_thresholds))

    def _dice(self, row: int, stored: StoredGeometry, given: Modalities, truth: np.ndarray) -> dict[str, float]:
        """Segment a case with a part of its modalities; return the Dice of each target."""
        from unet_models.metrics import overlap

        targets, num_classes = self.segmenter.bundle.labels.targets, self.segmenter.bundle.labels.num_classes
        dice = overlap.target_dice(self._segment(row, stored, given), truth, list(targets.values()), num_classes)
        return dict(zip(targets, dice.tolist(), strict=True))

    def _segment(self, row: int, stored: StoredGeometry, given: Modalities, watch: Watch | None = None) -> np.ndarray:
        """Predict the numbers of classes (*stored) of a case, from its shard or from its files, as the model does."""
        assert self.job is not None
        if self.job.raw_images is not None:
            numbers, _ = self.segmenter.segment_files(self.job.raw_images[self.reader.key(row)], given)
            return numbers.reshape(stored.stored_shape)  # files of one slice have a third axis
        sample = Sample(Prepared(self.reader.array(row, IMAGE), None, stored), self._partner_of(row))
        numbers = self.segmenter.segment_sample(sample, given, watch)
        return self.segmenter.bundle.postprocessing.apply(numbers, stored.stored_spacing)

    def _partner_of(self, row: int) -> Sample | None:
        """Read a case as the bundle's partner takes it, whose shards are others."""
        if self.partner is None:
            return None
        place = self.partner.row_of(self.reader.key(row))
        return Sample(Prepared(self.partner.array(place, IMAGE), None, read_stored_geometry(self.partner, place)))


def read_stored_geometry(reader: ShardReader, row: int) -> StoredGeometry:
    """Read the stored geometry and the preprocessing of a sample."""
    return StoredGeometry.model_validate_json(bytes(reader.read(row, GEOMETRY)))


def stored_truth(reader: ShardReader, row: int, done: Preprocessing) -> np.ndarray:
    """Return the reference numbers of classes as stored: a part of its own where preprocessing could not restore it."""
    if reader.has(row, TRUTH):
        return reader.array(row, TRUTH)
    return restore_mask(reader.array(row, MASK), done)
