"""Stage ``train``: shards to the restoration network's checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from data_pipelines.errors import ConfigError
from data_pipelines.images.buckets import bucket_size
from data_pipelines.shards.index import read_table
from flows.pipelines.restoration.config import RestorationConfig
from flows.sharding.images import ImageShardFigures
from flows.stages.attempt import Attempt
from flows.stages.record import Record
from flows.stages.shards import shards_uri
from flows.stages.stage import Stage
from flows.training.figures import TrainingFigures
from flows.training.initial import Meaning, prefixed
from flows.training.stage import training_stage
from unet_models.specs.restoration import ColourisationSpec

if TYPE_CHECKING:
    from flows.training.task import TrainingTask


def train_stage(config: RestorationConfig, shards: Record[ImageShardFigures]) -> Stage[TrainingFigures]:
    """Plan the stage. The weights are made for the task."""
    task = prefixed("task", config.task.model_dump(mode="json"))
    # The best checkpoint is chosen by images that this seed degrades.
    chosen_by = {"evaluate.seed": config.evaluate.seed} if config.train.select == "best" else {}

    def build_task(attempt: Attempt) -> TrainingTask:
        return plan_task(config, shards)

    return training_stage(
        "train",
        config,
        config.train,
        (shards,),
        build_task,
        meaning=_meaning(task, config.train.model.model_dump(mode="json")),
        describe=describe_bundle,
        more_identity={**task, **chosen_by},
    )


def describe_bundle(bundle: Mapping[str, Any]) -> Meaning:
    """Read from the file beside a restoration model's weights what they are made for."""
    return _meaning(prefixed("task", bundle["task"]), bundle["model"])


def _meaning(task: Mapping[str, Any], model: Mapping[str, Any]) -> Meaning:
    return Meaning(made_for={**task, **prefixed("train.model", model)})


def plan_task(config: RestorationConfig, shards: Record[ImageShardFigures]) -> TrainingTask:
    """Describe what to train. Raises ConfigError where an image is smaller than a patch."""
    from flows.pipelines.restoration.task import RestorationTask

    check_sizes(shards, config.train.patch_size)
    return RestorationTask(
        spec=config.training,
        index_uri=shards.output("index"),
        shards_uri=shards_uri(shards),
        task=config.task,
        class_weights=tuple(_class_weights(config, shards)),
        tile=config.evaluate.tile,
        degradation_seed=config.evaluate.seed,
    )


def check_sizes(shards: Record[ImageShardFigures], patch_size: int) -> None:
    """Raise ConfigError where an image is smaller than a training patch."""
    index = read_table(shards.output("index"), columns=["case_id", "bucket"]).to_pylist()
    small = [row for row in index if min(bucket_size(row["bucket"])) < patch_size]
    if small:
        raise ConfigError(
            f"train.patch_size: {len(small)} of {len(index)} images are smaller than {patch_size} pixels, such as "
            f"{small[0]['case_id']} ({small[0]['bucket']}); leave them out (data.min_side={patch_size}), or make the "
            "patches smaller"
        )


def _class_weights(config: RestorationConfig, shards: Record[ImageShardFigures]) -> list[float]:
    if not isinstance(config.task, ColourisationSpec) or config.task.output != "classes":
        return []
    from flows.pipelines.restoration.colours import weigh_colours

    return weigh_colours(config.task, shards.output("index"), shards_uri(shards))
