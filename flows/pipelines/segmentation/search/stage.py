"""Stage ``search``: shards to the best settings of the network, found by many short trainings."""

from __future__ import annotations

import logging
from collections import Counter
from typing import TYPE_CHECKING, Any

from pydantic import JsonValue

from data_pipelines.shards.index import read_table, write_table
from flows.config.specs import ComputeSpec
from flows.pipelines.segmentation.config import SegmentationConfig
from flows.pipelines.segmentation.shard import VolumeShardFigures
from flows.stages.attempt import Attempt
from flows.stages.record import Figures, Record
from flows.stages.stage import Stage
from flows.tuning.space import describe
from flows.tuning.spec import SearchSpec
from unet_models.specs.segmentation import TrainSpec

if TYPE_CHECKING:
    from flows.tuning.run import Searched

logger = logging.getLogger(__name__)


class SearchFigures(Figures):
    """Figures of a search."""

    values: dict[str, JsonValue]
    """Chosen settings by name; empty: the configuration was not beaten."""
    num_steps: int
    """Steps that the chosen network trains in the time of the configured one's ``train.num_steps``."""
    score: float
    """Validation score of the chosen network, on cases that neither training nor evaluation holds out."""
    configured_score: float
    """Validation score of the unchanged configuration, of equal training time."""
    num_finals: int
    """Trials that were trained once more, for longer, and are compared; 0: the short ones are."""
    num_trials: int
    num_whole: int
    """Trials that were not ended early."""
    num_refused: int
    """Trials that could not be trained, or exceed a limit."""


UNUSED_FIELDS = {"init", "keep_checkpoints", "log_every_steps"}
"""Settings of a training that no trial has."""


def search_stage(config: SegmentationConfig, shards: Record[VolumeShardFigures]) -> Stage[SearchFigures]:
    """Plan the stage: its key holds the search, the training's settings and the shards."""
    search = config.search
    assert search is not None

    def compute(attempt: Attempt) -> SearchFigures:
        return _search(config, search, shards, attempt)

    train = config.train.model_dump(mode="json", exclude=UNUSED_FIELDS)
    identity = {"search": search.model_dump(mode="json"), "train": train}
    return Stage("search", identity, (shards,), compute, SearchFigures, uses_gpu=True)


def apply_search(config: SegmentationConfig, found: SearchFigures) -> SegmentationConfig:
    """Return the configuration with what was found, which trains as long as the configured network would.

    Its steps are counted from the paces of both trials, measured side by side; ``train.within`` stays as it is.
    """
    from flows.pipelines.segmentation.search.space import apply

    if not found.values:
        return config
    changed = apply(config.train, found.values)
    if changed.within is None:
        changed = changed.with_num_steps(found.num_steps)
    return config.model_copy(update={"train": changed})


def overrides(before: SegmentationConfig, after: SegmentationConfig) -> list[str]:
    """Return the ``--set`` of the command line that train what was found without a search."""
    return _changes("train", before.train.model_dump(mode="json"), after.train.model_dump(mode="json"))


def _changes(name: str, before: Any, after: Any) -> list[str]:
    if isinstance(before, dict):
        return [change for key in before for change in _changes(f"{name}.{key}", before[key], after[key])]
    return [] if before == after else [f"{name}={after}".replace(" ", "")]


def _search(
    config: SegmentationConfig, search: SearchSpec, shards: Record[VolumeShardFigures], attempt: Attempt
) -> SearchFigures:
    from flows.pipelines.segmentation.search.page import search_page
    from flows.pipelines.segmentation.search.space import SEGMENTATION_SPACE
    from flows.pipelines.segmentation.train import build_task
    from flows.tuning.inner import inner_split
    from flows.tuning.run import run_search

    task = build_task(config, shards)
    index = inner_split(read_table(task.index_uri), search.num_folds, config.train.seed)
    write_table(attempt.uri("index.parquet"), index)
    spec = _fitting(task.spec, config.compute)
    task = task.model_copy(update={"index_uri": attempt.uri("index.parquet"), "spec": spec})
    sides = Counter(index["split"].to_pylist())
    logger.info("search: trials train on %d training cases and are compared on %d", sides["train"], sides["val"])
    if config.train.init:
        logger.warning("search: trials begin with random weights; train.init is for the training that follows")
    searched = run_search(task, SEGMENTATION_SPACE, search, config.compute, attempt.stage_uri)
    figures = _figures(searched, task.score, config)
    settings = ["search=null", *overrides(config, apply_search(config, figures))]
    attempt.write("report", "report.html", search_page(config, searched, figures.values, settings).encode())
    logger.info(
        "search: %d trials, %d to their end: %s (Dice %.4f, as configured %.4f); report %s",
        figures.num_trials,
        figures.num_whole,
        describe(figures.values),
        figures.score,
        figures.configured_score,
        attempt.output("report"),
    )
    return figures


def _fitting(spec: TrainSpec, compute: ComputeSpec) -> TrainSpec:
    """Return the settings of a trial, which trains the whole batch on one GPU: no more of it at once than a worker of
    the pipeline does."""
    if not compute.use_gpu or spec.loss.batch_dice:  # of which a batch must not be split
        return spec
    share = -(-spec.global_batch_size // compute.max_workers)
    return spec.model_copy(update={"micro_batch_size": min(share, spec.micro_batch_size or share)})


def _figures(searched: Searched, score: str, config: SegmentationConfig) -> SearchFigures:
    from flows.tuning.run import best_of

    best = best_of(searched.compared, score)
    configured = next(trial for trial in searched.compared if not trial.values)
    ratio = configured.outcome.seconds_per_step / best.outcome.seconds_per_step
    return SearchFigures(
        values=best.values,
        num_steps=max(1, round(config.train.num_steps * ratio)),
        score=best.outcome.score,
        configured_score=configured.outcome.score,
        num_finals=len(searched.finals),
        num_trials=len(searched.trials),
        num_whole=sum(trial.is_whole for trial in searched.trials),
        num_refused=sum(bool(trial.outcome.refused) for trial in searched.trials),
    )
