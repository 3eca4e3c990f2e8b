"""Stage ``train`` of the second pipeline: latents and text states -> the noise predictor's checkpoint."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flows.config import DiffusionConfig
from flows.sharded import shards_uri
from flows.stages import Attempt, Record, Stage
from flows.training.stage import training_stage

if TYPE_CHECKING:
    from flows.training.task import TrainingTask


def train_stage(config: DiffusionConfig, latents: Record) -> Stage:
    """Plan the stage."""

    def open_task(attempt: Attempt) -> TrainingTask:
        from flows.training.diffusion import DiffusionTask

        return DiffusionTask(
            spec=config.train,
            index_uri=latents.output("index"),
            shards_uri=shards_uri(latents),
            scaling_factor=latents.figures["scaling_factor"],
            empty_prompt_uri=latents.output("empty_prompt"),
        )

    return training_stage("train", config, config.train, (latents,), open_task)
