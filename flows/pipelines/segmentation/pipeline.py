"""The steps of the segmentation pipeline. Stages are imported when they are planned: the command line starts fast."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from data_pipelines.errors import ConfigError
from flows.pipelines.segmentation.ablation import SKIPS
from flows.pipelines.segmentation.config import SegmentationConfig
from flows.stages.pipeline import Branches, Pipeline, Records, Step, branch_key

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from flows.pipelines.segmentation.candidates import RankedCandidates
    from flows.pipelines.segmentation.evaluate import EnsembleScores
    from flows.pipelines.segmentation.folds import Fold
    from flows.pipelines.segmentation.pairs import PairFigures
    from flows.pipelines.segmentation.search.stage import SearchFigures
    from flows.pipelines.segmentation.shard import VolumeShardFigures
    from flows.registry.register import RegistrationFigures
    from flows.stages.pipeline import Explainer
    from flows.stages.record import EvaluationFigures, Record
    from flows.stages.stage import Stage
    from flows.training.figures import TrainingFigures


def plan_shard(config: SegmentationConfig, done: Records) -> Stage[VolumeShardFigures]:
    """Plan sharding: raw cases to shards."""
    from flows.pipelines.segmentation.shard import shard_stage

    return shard_stage(config.data, config.storage_uri, config.compute.num_cpus)


def is_cascade(config: SegmentationConfig) -> bool:
    """Tell whether the network refines the segmentation of a previous one."""
    return config.previous is not None


def plan_cascade(config: SegmentationConfig, done: Records) -> Stage[VolumeShardFigures]:
    """Plan the samples of a cascade: shards, and the segmentation of the previous candidate beside each image."""
    from flows.pipelines.segmentation.cascade import cascade_stage

    return cascade_stage(config, done["shard"], _find_previous(config))


def _find_previous(config: SegmentationConfig) -> Sequence[Fold]:
    """Find the folds of the previous candidate, which are done. They are looked up: a job knows its own run alone.

    Raises ConfigError where there is no such candidate, or where one of its folds is not done.
    """
    from flows.pipelines.segmentation.candidates import choose_mirroring
    from flows.pipelines.segmentation.folds import find_done
    from flows.stages.stage import find_record

    if config.previous_settings is None:
        raise ConfigError(f"previous: {config.previous} is no candidate of this configuration; name it in candidates")
    previous = SegmentationConfig.model_validate(config.previous_settings)
    done: dict[str, Record[Any]] = {}
    for place, (title, each) in enumerate(split_runs(previous).items()):
        own: dict[str, Record[Any]] = {}
        for name, plan in (("shard", plan_shard), ("train", plan_train), ("evaluate", plan_evaluate)):
            stage: Stage[Any] = plan(each, own)
            record = find_record(stage, each.storage_uri, check_external=False)  # as it was before this run
            if record is None:
                raise ConfigError(f"previous: {name} of {config.previous}, {title}, is not done")
            own[name] = record
        done |= {branch_key(name, place): record for name, record in own.items()}
    (folds,) = find_done(previous, done).values()
    return choose_mirroring(previous, folds).folds


def _samples(done: Records) -> Record[VolumeShardFigures]:
    return done["cascade"] if "cascade" in done else done["shard"]


def has_search(config: SegmentationConfig) -> bool:
    """Tell whether the network is searched for."""
    return config.search is not None


def plan_search(config: SegmentationConfig, done: Records) -> Stage[SearchFigures]:
    """Plan the search: shards to the settings of the network."""
    from flows.pipelines.segmentation.search.stage import search_stage

    return search_stage(config, done["shard"])


def _chosen(config: SegmentationConfig, done: Records) -> SegmentationConfig:
    """Return the configuration with what a search has found."""
    if "search" not in done:
        return config
    from flows.pipelines.segmentation.search.stage import apply_search

    return apply_search(config, done["search"].figures)


def plan_train(config: SegmentationConfig, done: Records) -> Stage[TrainingFigures]:
    """Plan training: shards to a checkpoint."""
    from flows.pipelines.segmentation.train import train_stage

    return train_stage(_chosen(config, done), _samples(done))


def plan_evaluate(config: SegmentationConfig, done: Records) -> Stage[EvaluationFigures]:
    """Plan evaluation: checkpoint to scores and a report."""
    from flows.pipelines.segmentation.evaluate import evaluate_stage

    return evaluate_stage(_chosen(config, done), _samples(done), done["train"])


def plan_register(config: SegmentationConfig, done: Records) -> Stage[RegistrationFigures]:
    """Plan registration: checkpoint and scores to a registered model."""
    from flows.pipelines.segmentation.register import register_model

    return register_model(_chosen(config, done), done["shard"], done["train"], done["evaluate"])


def split_runs(config: SegmentationConfig) -> Mapping[str, SegmentationConfig]:
    """Return a configuration for each candidate and fold; one of one: itself."""
    if isinstance(config.data.fold, int) and not config.candidates:
        return {config.pipeline: config}
    from flows.pipelines.segmentation.folds import split_runs

    return split_runs(config)


def previous_runs(config: SegmentationConfig) -> Mapping[str, Sequence[str]]:
    """Return what runs of cascades wait for."""
    if not any(each.previous for each in config.candidate_configs.values()):
        return {}
    from flows.pipelines.segmentation.folds import previous_runs

    return previous_runs(config)


def has_pairs(config: SegmentationConfig) -> bool:
    """Tell whether averages of two candidates are compared, too."""
    return bool(config.candidates) and config.pair_candidates


def plan_pair(config: SegmentationConfig, done: Records) -> Stage[PairFigures]:
    """Plan the predictions of every two candidates together."""
    from flows.pipelines.segmentation.pairs import pair_stage

    return pair_stage(_compare(config, done))


def _compare(config: SegmentationConfig, done: Records) -> RankedCandidates:
    from flows.pipelines.segmentation.candidates import compare_candidates
    from flows.pipelines.segmentation.pairs import with_pairs

    comparison = compare_candidates(config, done)
    return with_pairs(comparison, done["pair"]) if "pair" in done else comparison


def plan_ensemble(config: SegmentationConfig, done: Records) -> Stage[EnsembleScores]:
    """Plan the ensemble: the trained folds of the best candidate, or pair, to one model, scored on all cases."""
    from flows.pipelines.segmentation.ensemble import ensemble_stage

    return ensemble_stage(config, _compare(config, done))


def plan_register_ensemble(config: SegmentationConfig, done: Records) -> Stage[RegistrationFigures]:
    """Plan the registration of an ensemble."""
    from flows.pipelines.segmentation.ensemble import register_ensemble

    return register_ensemble(_compare(config, done), done["ensemble"])


def load_explainer(bundle: Path, class_name: str | None) -> Explainer:
    """Load a registered model to draw its attention gates and saliency."""
    from flows.pipelines.segmentation.explain import SegmentationExplainer

    return SegmentationExplainer(bundle, class_name)


SEGMENTATION = Pipeline(
    name="segmentation",
    config=SegmentationConfig,
    steps=(
        Step("shard", plan_shard, "Raw data to shards."),
        Step(
            "cascade",
            plan_cascade,
            "Shards and, beside each image, another candidate's segmentation.",
            is_cascade,
            waits=True,
        ),
        Step("search", plan_search, "Shards to the best network within a time.", has_search),
        Step("train", plan_train, "Shards to a checkpoint."),
        Step("evaluate", plan_evaluate, "Checkpoint to scores and a report."),
        Step("register", plan_register, "Checkpoint and scores to a registered model."),
    ),
    branches=Branches(
        split=split_runs,
        waits_for=previous_runs,
        last="evaluate",
        joint=(
            Step("pair", plan_pair, "Score the average of every two candidates on the held-out cases.", has_pairs),
            Step("ensemble", plan_ensemble, "Folds of the best candidate to one model, scored on all cases."),
            Step("register", plan_register_ensemble, "Checkpoint and scores to a registered model."),
        ),
    ),
    ablations=(SKIPS,),
    load_explainer=load_explainer,
)
