"""Runs of each fold, and of each candidate: their configurations, and the records that they leave."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

from data_pipelines import storage
from data_pipelines.errors import ConfigError, name_some
from data_pipelines.shards.index import read_table
from data_pipelines.shards.reader import ShardReader
from data_pipelines.volumes.preprocess import StoredGeometry
from data_pipelines.volumes.sources.find import find_cases
from data_pipelines.volumes.sources.names import normal, read_json
from data_pipelines.volumes.splits import find_folds, find_splits_file
from flows.pipelines.segmentation.config import SegmentationConfig
from flows.pipelines.segmentation.evaluate import CASES, VOXELS, SegmentationScores
from flows.pipelines.segmentation.evaluation.label_maps import read_map
from flows.pipelines.segmentation.evaluation.scoring import ClassScore, read_stored_geometry, stored_truth
from flows.pipelines.segmentation.mirroring import Variant, variant_output
from flows.pipelines.segmentation.postprocess import Case
from flows.pipelines.segmentation.shard import VolumeShardFigures
from flows.stages.pipeline import Records, branch_key
from flows.stages.record import Record
from flows.stages.shards import shards_uri
from flows.training.figures import TrainingFigures


class Fold:
    """Records of one fold's run."""

    def __init__(
        self, number: int, done: Records, place: int, tta: bool | None = None, earlier: Sequence[Fold] = ()
    ) -> None:
        """Gather the records of the run in ``place``; ``tta`` None: predictions are those that it chose itself.

        A case that one of ``earlier`` holds out, too, has its scores there.
        """
        self.number, self.origin, self.earlier = number, (done, place), earlier
        self.shards: Record[VolumeShardFigures] = samples_of(done, place)
        self.training: Record[TrainingFigures] = done[branch_key("train", place)]
        self.evaluation: Record[SegmentationScores] = done[branch_key("evaluate", place)]
        self.tta = self.evaluation.figures.tta if tta is None else tta

    def with_tta(self, tta: bool) -> Fold:
        """Return the fold with predictions of its held-out cases that have test-time mirroring, or have none."""
        return Fold(self.number, *self.origin, tta, self.earlier)

    @property
    def variant(self) -> Variant:
        """Predictions of its held-out cases."""
        return next(each for each in self.evaluation.figures.variants if each.tta == self.tta)

    @property
    def records(self) -> tuple[Record[VolumeShardFigures], Record[TrainingFigures], Record[SegmentationScores]]:
        """Its records, in order."""
        return self.shards, self.training, self.evaluation

    @property
    def lineage(self) -> tuple[Record[Any], ...]:
        """Records of all stages that led to its network: of a cascade the samples without label maps, too."""
        done, place = self.origin
        shards = done[branch_key("shard", place)]
        return self.records if shards is self.shards else (shards, *self.records)

    @property
    def predictions_uri(self) -> str:
        """Folder of the label maps of its held-out cases."""
        return storage.join(self.evaluation.uri, self.variant.predictions)

    @cached_property
    def reader(self) -> ShardReader:
        """Its samples."""
        return ShardReader.from_uri(self.shards.output("index"), shards_uri(self.shards))

    @cached_property
    def held_out(self) -> frozenset[str]:
        """Cases that it holds out."""
        return frozenset(row["case_id"] for row in self._read_scores())

    @cached_property
    def scores(self) -> list[ClassScore]:
        """Scores of its held-out cases, those of earlier folds left out: each case counts once."""
        elsewhere = frozenset().union(*(fold.held_out for fold in self.earlier))
        return [ClassScore.of_row(row) for row in self._read_scores() if row["case_id"] not in elsewhere]

    def _read_scores(self) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = read_table(self._scores_uri).to_pylist()
        return rows

    @property
    def _scores_uri(self) -> str:
        return self.evaluation.output(variant_output(CASES, tta=self.tta))

    def read_voxels(self) -> bytes:
        """Read the voxels, from which calibration is fitted, of the cases that it has the scores of."""
        from flows.pipelines.segmentation.calibration import select_voxels

        return select_voxels(storage.read_bytes(self._voxels_uri), {score.row for score in self.scores})

    @property
    def _voxels_uri(self) -> str:
        return self.evaluation.output(variant_output(VOXELS, tta=self.tta))

    def load_case(self, case_id: str, row: int) -> Case:
        """Read prediction and truth of a held-out case, in its original geometry."""
        done = self.stored(row)
        prediction = read_map(self.predictions_uri, case_id, self.shards.figures.labels, done)
        return Case(prediction, stored_truth(self.reader, row, done), done.stored_spacing)

    def stored(self, row: int) -> StoredGeometry:
        """Return the geometry of a case as stored."""
        return read_stored_geometry(self.reader, row)


def samples_of(done: Records, place: int) -> Record[VolumeShardFigures]:
    """Return the samples that a run trains on: of a cascade those that hold label maps."""
    cascade = branch_key("cascade", place)
    return done[cascade if cascade in done else branch_key("shard", place)]


def split_runs(config: SegmentationConfig) -> dict[str, SegmentationConfig]:
    """Return the configuration of each candidate's run of each fold, by its title.

    Raises ConfigError for folds that do not exist, and for a cascade of cases that none of them holds out.
    """
    folds = _numbers(config)
    _check_previous(config)
    runs = {}
    for name, candidate in config.candidate_configs.items():
        for fold in folds:
            runs[_title(config, name, fold)] = candidate.model_copy(
                update={"data": candidate.data.model_copy(update={"fold": fold})}
            )
    return runs


def _check_previous(config: SegmentationConfig) -> None:
    """Refuse a cascade where a case is to be segmented that all previous networks are trained on."""
    previous = next((changes["previous"] for changes in config.candidates.values() if changes.get("previous")), None)
    if previous is None or config.data.on_error == "quarantine":  # which cases there are is known after sharding
        return
    dataset = find_cases(config.data, storage.generated_folder())
    if (path := find_splits_file(dataset, config.data)) is None:
        return  # drawn splits hold out each case
    held_out, trained = (_named_in(read_json(path), side) for side in ("val", "train"))
    known = {case.case_id for case in dataset.cases} - {problem.case_id for problem in dataset.problems}
    if never := sorted((trained - held_out) & known):
        raise ConfigError(f"{path}: {explain_trained(previous, never)}")


def _named_in(folds: Any, side: str) -> set[str]:
    """Return the cases that folds of a splits file name on a side; what else is wrong with the file, sharding says."""
    lists = [fold.get(side) for fold in folds if isinstance(fold, dict)]
    return {normal(str(case_id)) for each in lists if isinstance(each, list) for case_id in each}


def explain_trained(previous: str, case_ids: Sequence[str]) -> str:
    """Say why cases that no fold holds out cannot be part of a cascade, and what to do."""
    return (
        f"no fold holds out {list_cases(case_ids)}: all networks of {previous} are trained on them, and segment them "
        "better than new cases; name each case in val of one fold of the splits file, or leave the cascade out of "
        "candidates"
    )


def list_cases(case_ids: Sequence[str]) -> str:
    """Name the first cases of many."""
    return name_some(case_ids, 3)


def _title(config: SegmentationConfig, name: str, fold: int) -> str:
    return f"{name}, fold {fold}" if config.candidates else f"fold {fold}"


def previous_runs(config: SegmentationConfig) -> dict[str, list[str]]:
    """Return the titles of the runs that each run of a cascade waits for, by its own."""
    folds = _numbers(config)
    return {
        _title(config, name, fold): [_title(config, each.previous, number) for number in folds]
        for name, each in config.candidate_configs.items()
        if each.previous is not None
        for fold in folds
    }


def find_done(config: SegmentationConfig, done: Records) -> dict[str, list[Fold]]:
    """Gather the records of each candidate's folds."""
    folds = _numbers(config)
    found: dict[str, list[Fold]] = {}
    for candidate, name in enumerate(config.candidate_configs):
        own: list[Fold] = []
        for place, number in enumerate(folds):
            own.append(Fold(number, done, candidate * len(folds) + place, earlier=tuple(own)))
        found[name] = own
    return found


def _numbers(config: SegmentationConfig) -> tuple[int, ...]:
    """List the folds of a configuration. Raises ConfigError for those that do not exist."""
    if isinstance(config.data.fold, int):
        return (config.data.fold,)
    known = find_folds(find_cases(config.data, storage.generated_folder()), config.data)
    if config.data.fold == "all":
        return known
    if unknown := sorted(set(config.data.fold) - set(known)):
        raise ConfigError(f"data.fold: {unknown} out of range; there are folds 0..{len(known) - 1}")
    return config.data.fold
