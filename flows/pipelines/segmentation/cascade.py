"""Stage ``cascade``: samples whose images have the segmentation of another candidate as a further channel.

Each case is segmented by the one network of that candidate that was not trained on it (Isensee 2021): what the second
network learns from errs as it will on new cases. The shards hold copies of the images.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

from data_pipelines import storage
from data_pipelines.digests import digest_of
from data_pipelines.errors import ConfigError, DataError, Problem, ProblemList
from data_pipelines.shards.incremental import Task, group_by_size, shard_missing
from data_pipelines.shards.index import IMAGE, PART_COLUMNS, Row, build_index, places_of, read_rows
from data_pipelines.shards.reader import ShardReader
from data_pipelines.shards.writer import Sample, npy_bytes, shard_name, write_shard
from data_pipelines.specs import Spec
from data_pipelines.volumes.classes import Labels
from data_pipelines.volumes.preprocess import Prepared, with_labels
from data_pipelines.volumes.sharding import MAX_CASES_PER_SHARD
from flows.cluster.connection import use_ray
from flows.pipelines.segmentation.config import SegmentationConfig
from flows.pipelines.segmentation.evaluation.label_maps import read_map
from flows.pipelines.segmentation.evaluation.scoring import read_stored_geometry
from flows.pipelines.segmentation.folds import Fold, explain_trained, list_cases
from flows.pipelines.segmentation.shard import VolumeShardFigures
from flows.stages.attempt import Attempt
from flows.stages.record import Record
from flows.stages.shards import add_index, shards_exist, shards_uri
from flows.stages.stage import Stage

FORMAT = 1
"""Part of the samples' digests; raised when they change for the same predictions."""
PLACED = ("shard", "content_sha256", "split")
"""Columns of an index row that say where a sample is, beside those of its parts."""
KEPT = ("fingerprint", "problems", "notices")
"""Outputs of sharding that hold for these samples, too."""


class Work(Spec):
    """One shard to be written."""

    uri: str
    """URI of the shard."""
    index_uri: str
    shards_uri: str
    """Samples without the channel."""
    rows: tuple[int, ...]
    """Rows of the index."""
    digests: tuple[str, ...]
    """Digest of each sample."""
    predictions: tuple[str, ...]
    """Folder of each case's label map."""
    labels: Labels
    """Classes, and the values that stand for them in label maps."""


def cascade_stage(
    config: SegmentationConfig, shards: Record[VolumeShardFigures], previous: Sequence[Fold]
) -> Stage[VolumeShardFigures]:
    """Plan the stage from the folds of the previous candidate: its key holds the identity of their predictions."""
    identity = {"format": FORMAT, "tta": [fold.tta for fold in previous]}
    evaluations = tuple(fold.evaluation for fold in previous)

    def compute(attempt: Attempt) -> VolumeShardFigures:
        return _add_labels(config, shards, previous, attempt)

    return Stage("cascade", identity, (shards, *evaluations), compute, VolumeShardFigures, shards_exist)


def _add_labels(
    config: SegmentationConfig, shards: Record[VolumeShardFigures], previous: Sequence[Fold], attempt: Attempt
) -> VolumeShardFigures:
    index = {row["case_id"]: row for row in read_rows(shards.output("index"))}
    folds = {score.case_id: fold for fold in previous for score in fold.scores}  # that held each case out
    if lacking := sorted(index.keys() - folds.keys()):
        known = {row["case_id"] for fold in previous for row in read_rows(fold.shards.output("index"))}
        raise ConfigError(f"previous: {explain_lacking(str(config.previous), lacking, known)}")
    numbers = {case_id: number for number, case_id in enumerate(index)}
    digests = {
        case_id: digest_of([FORMAT, row["digest"], folds[case_id].evaluation.key, folds[case_id].tta])
        for case_id, row in index.items()
    }
    # Of all folds' runs, which differ in their splits alone, one folder: the first run writes the samples.
    origin = [shards.figures.shards, *((fold.evaluation.key, fold.tta) for fold in previous)]
    folder = f"shards/{digest_of([FORMAT, *origin])[:12]}"
    uri = storage.join(shards.root, folder)
    labels, sizes = shards.figures.labels, {each: places_of(row)[IMAGE].size / 1e6 for each, row in index.items()}

    def plan(missing: list[str]) -> list[Task]:
        tasks = []
        for group in group_by_size(missing, sizes.__getitem__, config.data.shard_megabytes, MAX_CASES_PER_SHARD):
            chosen = tuple(digests[case_id] for case_id in group)
            work = Work(
                uri=storage.join(uri, shard_name(chosen)),
                index_uri=shards.output("index"),
                shards_uri=shards_uri(shards),
                rows=tuple(numbers[case_id] for case_id in group),
                digests=chosen,
                predictions=tuple(folds[case_id].predictions_uri for case_id in group),
                labels=labels,
            )
            tasks.append(Task(text=work.model_dump_json(), num_samples=len(group)))
        return tasks

    with use_ray(config.compute.num_cpus):
        sharded = shard_missing(digests, uri, plan, _shard_text, "cases", verb="cascade")
    if sharded.problems:
        raise DataError(sharded.problems)
    # Samples keep the digests of what they were made from: by these held-out cases are known, of whatever candidate.
    rows = [row | {"digest": index[row["case_id"]]["digest"]} for row in sharded.rows]
    splits = {case_id: row["split"] for case_id, row in index.items()}
    counts = add_index(attempt, build_index(rows, splits), shards.root, folder)
    for name in KEPT:
        attempt.add(name, shards.output(name))
    changes = {**counts, "num_new": sharded.num_new, "num_previous": labels.num_classes - 1}
    return shards.figures.model_copy(update=changes)


def explain_lacking(previous: str, lacking: Sequence[str], known: Collection[str]) -> str:
    """Say why no network of ``previous`` has segmented some cases, and what to do; ``known`` are those of its folds."""
    if trained := [case_id for case_id in lacking if case_id in known]:
        return explain_trained(previous, trained)
    return (
        f"{previous} has left out {list_cases(lacking)}: all candidates must use the same cases; give them the same "
        "data.preprocess"
    )


def _shard_text(text: str) -> tuple[list[Row], list[Problem]]:
    return shard_one(Work.model_validate_json(text))


def shard_one(work: Work) -> tuple[list[Row], list[Problem]]:
    """Write some samples with their label maps as one shard; the body of a cluster task."""
    problems = ProblemList()
    rows = write_shard(work.uri, _samples(work, problems))
    return rows, problems


def _samples(work: Work, problems: ProblemList) -> Iterator[Sample]:
    rows, reader = read_rows(work.index_uri), ShardReader.from_uri(work.index_uri, work.shards_uri)
    for number, digest, predictions in zip(work.rows, work.digests, work.predictions, strict=True):
        row = rows[number]
        with problems.collecting():
            done = read_stored_geometry(reader, number)
            prediction = read_map(predictions, row["case_id"], work.labels, done)
            sample = with_labels(Prepared(reader.array(number, IMAGE), None, done), prediction)
            parts = {part: bytes(reader.read(number, part)) for part in places_of(row)}
            yield _described(row, digest), parts | {IMAGE: npy_bytes(sample.image)}


def _described(row: Row, digest: str) -> Row:
    """Return what an index row says of the case, without where its parts are."""
    kept = {name: value for name, value in row.items() if not name.startswith(PART_COLUMNS) and name not in PLACED}
    return kept | {"digest": digest}
