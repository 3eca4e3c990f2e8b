"""Stage ``shard``: raw cases to WebDataset shards, their index, and the fingerprint of the data set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from functools import lru_cache
from pathlib import Path
from typing import TypedDict

from pydantic import Field

from data_pipelines import storage
from data_pipelines.digests import digest_of
from data_pipelines.errors import ConfigError, DataError
from data_pipelines.notices import Notice, log_notices
from data_pipelines.shards.incremental import Sharded
from data_pipelines.shards.index import Row, build_index
from data_pipelines.volumes.cases import Dataset
from data_pipelines.volumes.classes import Labels
from data_pipelines.volumes.files import strip_suffix
from data_pipelines.volumes.fingerprint import CaseStatistics, Fingerprint, merge_statistics
from data_pipelines.volumes.leaks import patient_notices
from data_pipelines.volumes.sharding import (
    read_notices,
    sample_digests,
    shard_cases,
    shards_folder,
    target_spacing,
)
from data_pipelines.volumes.sources.find import find_cases
from data_pipelines.volumes.sources.nnunet import CHANNEL_SUFFIX
from data_pipelines.volumes.specs import DataSpec, InputSpec, Spacing
from data_pipelines.volumes.splits import (
    Side,
    Splits,
    assign_splits,
    check_classes_are_trained,
    classes_without_case,
    find_splits_file,
    notice_unscored,
)
from data_pipelines.volumes.trained_range import TrainedRange
from flows.cluster.connection import use_ray
from flows.config.run_id import current_run_id
from flows.stages.attempt import Attempt
from flows.stages.record import Record
from flows.stages.shards import ShardFigures, add_index, add_notices, add_problems, shards_exist
from flows.stages.stage import Stage

FATAL_RULES = {"too-few-cases", "absent-class"}
"""Rules of the data set as a whole, which leaving cases out cannot mend: they stop whatever ``data.on_error`` says."""


class VolumeShardFigures(ShardFigures):
    """Figures of sharded volumes."""

    spacing: Spacing | None
    """Target spacing in mm, along the axes of a sample; none: each case's own."""
    labels: Labels
    """Classes, and the values that stand for them in the files."""
    channels: tuple[str, ...]
    """Names of the image channels."""
    files_per_image: int = 1
    """Files that hold the channels of one image; 1 for colour images and 4-D volumes."""
    has_channel_numbers: bool = False
    """True where the names of image files end in their channel's number, NAME_0000."""
    trained_range: TrainedRange | None = None
    """Range of the training cases."""
    num_previous: int = 0
    """Classes of the label map that is the last channel of every image, the segmentation of a previous network; 0:
    there is none."""
    notices: dict[str, int] = Field(default={})
    """Name of each kind of assumption, conversion or skipped file to how often it occurred; output ``notices``."""


def shard_stage(spec: DataSpec, root: str, num_cpus: int | None = None) -> Stage[VolumeShardFigures]:
    """Plan the stage from the source files and their digests, without reading a voxel.

    ``num_cpus`` is what later stages need of a Ray that is started here.
    """
    dataset = find_cases(spec, storage.generated_folder())
    if spec.on_error == "stop" and not dataset.cases and dataset.problems:
        raise DataError(dataset.problems)
    spacing = target_spacing(dataset, spec)
    digests, unreadable = sample_digests(dataset, spec, spacing)
    readable = tuple(case for case in dataset.cases if case.case_id in digests)
    dataset = replace(dataset, cases=readable, problems=(*dataset.problems, *unreadable))
    folder = shards_folder(dataset, spec, spacing)
    identity = {
        "samples": digests,
        "labels": dataset.labels.model_dump(),
        "problems": [asdict(problem) for problem in dataset.problems],
        "splits": _splits_identity(dataset, spec),
        "on_error": spec.on_error,
        "limits": spec.model_dump(mode="json", include=set(InputSpec.model_fields)),
    }

    def compute(attempt: Attempt) -> VolumeShardFigures:
        with use_ray(num_cpus):
            sharded = shard_cases(dataset, spec, storage.join(root, folder), digests, spacing)
        splits = _split(dataset, spec, sharded)
        counts = add_index(attempt, build_index(_with_subjects(sharded.rows, dataset), splits), root, folder)
        add_problems(attempt, sharded.problems)
        fingerprint = _fingerprint(dataset, sharded)
        attempt.write("fingerprint", "fingerprint.json", fingerprint.model_dump_json(indent=1).encode())
        found = [*dataset.notices, *read_notices(sharded.rows), *_split_notices(splits, dataset, sharded)]
        notices = add_notices(attempt, found)
        return VolumeShardFigures(
            **counts,
            num_new=sharded.num_new,
            num_quarantined=len(_left_out(dataset, sharded)),
            dataset=dataset.name,
            spacing=spacing,
            labels=dataset.labels,
            channels=dataset.channels,
            trained_range=_trained_range(sharded, splits),
            **_naming(dataset),
            notices=notices,
        )

    def is_valid(record: Record[VolumeShardFigures]) -> bool:
        if not shards_exist(record):
            return False
        if run_id := current_run_id():  # of a stage that runs it is ``add_notices`` that logs them
            _log_once(run_id, dataset.notices)
        return True

    return Stage("shard", identity, (), compute, VolumeShardFigures, is_valid)


@lru_cache(maxsize=1)
def _log_once(run_id: str, notices: tuple[Notice, ...]) -> None:
    """Log what was skipped or assumed while cases were looked for: once in a run, of which each fold looks for them."""
    log_notices(notices)


class _Naming(TypedDict):
    """Names of the image files, by which prediction knows channels from cases."""

    files_per_image: int
    has_channel_numbers: bool


def _naming(dataset: Dataset) -> _Naming:
    stems = [strip_suffix(Path(path).name) for case in dataset.cases for path in case.images]
    return {
        "files_per_image": max((len(case.images) for case in dataset.cases), default=1),
        "has_channel_numbers": bool(stems) and all(CHANNEL_SUFFIX.fullmatch(stem) for stem in stems),
    }


def _split(dataset: Dataset, spec: DataSpec, sharded: Sharded) -> dict[str, Side]:
    """Assign the good cases to a side. Raises DataError with every problem, the splits file's among them."""
    bad = _left_out(dataset, sharded)
    splits: Splits | None = None
    try:
        splits = assign_splits(dataset, spec, quarantined=bad)
        sharded.problems.extend(splits.problems)
    except DataError as error:
        sharded.problems.extend(error.problems)
    except ConfigError:
        if not sharded.problems:
            raise
        # Else no fold can be made of what the problems leave: they are what to fix.
    is_fatal = any(problem.rule in FATAL_RULES for problem in sharded.problems)
    if splits is None or is_fatal or (sharded.problems and spec.on_error == "stop"):
        raise DataError(sharded.problems)
    return {case_id: side for case_id, side in splits.sides.items() if case_id not in bad}


def _with_subjects(rows: Sequence[Row], dataset: Dataset) -> list[Row]:
    """Return the rows with the subjects that are declared now; the shards may be older."""
    subjects = {case.case_id: case.subject for case in dataset.cases}
    return [row | {"subject": subjects[row["case_id"]]} for row in rows]


def _split_notices(sides: Mapping[str, Side], dataset: Dataset, sharded: Sharded) -> list[Notice]:
    """Collect what is doubtful in a split. Raises DataError where no training case shows a class."""
    voxels = {row["case_id"]: row["class_voxels"] for row in sharded.rows}
    absent = classes_without_case(sides, voxels, dataset.labels.targets)
    check_classes_are_trained(absent["train"], dataset)
    return [*patient_notices(sides, dataset), *notice_unscored(absent["val"], dataset)]


def _left_out(dataset: Dataset, sharded: Sharded) -> set[str]:
    """Return the ids of cases with a problem of their own."""
    good = {row["case_id"] for row in sharded.rows}
    named = {problem.case_id for problem in sharded.problems if problem.case_id}
    return {case.case_id for case in dataset.cases if case.case_id not in good} | named


def _fingerprint(dataset: Dataset, sharded: Sharded) -> Fingerprint:
    statistics = [CaseStatistics.model_validate_json(row["statistics"]) for row in sharded.rows]
    return merge_statistics(statistics, dataset.labels.numbers, dataset.channels)


def _trained_range(sharded: Sharded, sides: Mapping[str, Side]) -> TrainedRange:
    trained = [row for row in sharded.rows if sides.get(row["case_id"]) == "train"]
    return TrainedRange.of([CaseStatistics.model_validate_json(row["statistics"]) for row in trained])


def _splits_identity(dataset: Dataset, spec: DataSpec) -> str:
    """Compute the digest of what decides the splits: the splits file's content, or the seed."""
    path = find_splits_file(dataset, spec)
    content = storage.digest(str(path)) if path is not None and path.is_file() else None
    subjects = {case.case_id: case.subject for case in dataset.cases}
    return digest_of([content, spec.held_out_fold, spec.num_folds, spec.split_seed, subjects])
