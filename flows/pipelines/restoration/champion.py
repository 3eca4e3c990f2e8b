"""The champion on a new version's held-out images: restored by its own bundle, scored and compared image by image."""

from __future__ import annotations

from functools import partial

import pyarrow as pa

from data_pipelines import storage
from data_pipelines.errors import InputError
from data_pipelines.shards.index import read_table
from data_pipelines.temporary import temporary_folder
from flows.pipelines.restoration.config import RestorationConfig
from flows.pipelines.restoration.evaluate import (
    IMAGES,
    RestorationScores,
    evaluation_digest,
    score_images,
    scores_of,
)
from flows.pipelines.restoration.evaluation.scoring import ImageRow
from flows.registry.bundle import WEIGHTS, read_bundle
from flows.registry.champion import Champion, Compared, compare_scores, readable_bundle
from flows.sharding.images import ImageShardFigures
from flows.stages.attempt import Attempt
from flows.stages.record import Record
from flows.training.champion import evaluate_champion
from unet_models.specs.restoration import (
    DenoisingSpec,
    ImageBundle,
    InpaintingSpec,
    SuperResolutionSpec,
    TaskSpec,
)


def compare_with_champion(
    config: RestorationConfig,
    shards: Record[ImageShardFigures],
    evaluation: Record[RestorationScores],
    champion: Champion,
    metric: str,
) -> Compared:
    """Score the champion on the held-out images, where it was not yet, and compare it with the new version.

    Raises InputError where the champion restores another degradation, or was trained on one of these images.
    """
    known = champion.find_evaluation(evaluation_digest(config, shards), config.storage_uri, RestorationScores)
    theirs = _rows(known or _score_champion(config, shards, champion))
    ours = _rows(evaluation)
    scores, their_scores = (scores_of(rows, metric) for rows in (ours, theirs))
    outcome = compare_scores(metric, scores, their_scores, config.registry.compare_level)
    return Compared(outcome, _side_by_side(ours, theirs))


def task_to_compare(ours: TaskSpec, theirs: TaskSpec) -> TaskSpec:
    """Return the task of a champion with the degradation of the new version.

    Raises InputError where it restores another degradation.
    """
    factors = [task.factor if isinstance(task, SuperResolutionSpec) else 1 for task in (ours, theirs)]
    if ours.name != theirs.name or factors[0] != factors[1]:
        raise InputError(f"it restores {_describe(theirs)}, the new version {_describe(ours)}")
    return ours if isinstance(ours, DenoisingSpec | InpaintingSpec) else theirs


def _describe(task: TaskSpec) -> str:
    return f"{task.name} x{task.factor}" if isinstance(task, SuperResolutionSpec) else task.name


def _score_champion(
    config: RestorationConfig, shards: Record[ImageShardFigures], champion: Champion
) -> Record[RestorationScores]:
    """Score the champion; a cache hit where these images were scored before."""
    identity = {"data": evaluation_digest(config, shards)}
    compute = partial(_compute, config, shards, champion)
    return evaluate_champion(config, champion, identity, (shards,), compute, RestorationScores)


def _compute(
    config: RestorationConfig, shards: Record[ImageShardFigures], champion: Champion, attempt: Attempt
) -> RestorationScores:
    with temporary_folder("champion") as folder:
        files = champion.fetch_bundle(folder)
        with readable_bundle():
            bundle = read_bundle(files, ImageBundle)
        bundle = bundle.model_copy(update={"task": task_to_compare(config.task, bundle.task)})
        storage.copy(str(files / WEIGHTS), attempt.uri(WEIGHTS))
    rows = score_images(config, shards, attempt, bundle, attempt.uri(WEIGHTS))
    return RestorationScores(metrics={}, num_images=len(rows))


def _rows(record: Record[RestorationScores]) -> list[ImageRow]:
    """Read the scores, images in one order."""
    rows: list[ImageRow] = read_table(record.output(IMAGES)).to_pylist()
    return sorted(rows, key=lambda row: str(row["case_id"]))


def _side_by_side(ours: list[ImageRow], theirs: list[ImageRow]) -> pa.Table:
    """Join the scores of both models: one row per image."""
    metrics = [name for name in ours[0] if name not in ("case_id", "row") and "/baseline" not in name]
    return pa.Table.from_pylist(
        [
            {"image": our["case_id"]}
            | {name: our[name] for name in metrics}
            | {f"champion {name}": their.get(name) for name in metrics}
            for our, their in zip(ours, theirs, strict=True)
        ]
    )
