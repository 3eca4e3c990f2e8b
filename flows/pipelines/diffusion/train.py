"""Stage ``train``: latents and text states to the noise predictor's checkpoint."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flows.pipelines.diffusion.config import DiffusionConfig
from flows.pipelines.diffusion.encode import LatentFigures
from flows.stages.attempt import Attempt
from flows.stages.record import Record
from flows.stages.shards import shards_uri
from flows.stages.stage import Stage
from flows.training.figures import TrainingFigures
from flows.training.stage import training_stage

if TYPE_CHECKING:
    from flows.training.task import TrainingTask


def train_stage(config: DiffusionConfig, latents: Record[LatentFigures]) -> Stage[TrainingFigures]:
    """Plan the stage."""

    def build_task(attempt: Attempt) -> TrainingTask:
        from flows.pipelines.diffusion.task import DiffusionTask

        return DiffusionTask(
            spec=config.train,
            index_uri=latents.output("index"),
            shards_uri=shards_uri(latents),
            scaling_factor=latents.figures.scaling_factor,
            empty_prompt_uri=latents.output("empty_prompt"),
        )

    return training_stage("train", config, config.train, (latents,), build_task)
