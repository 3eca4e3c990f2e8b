"""Stage ``train``: latents and text states to the noise predictor's checkpoint."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flows.pipelines.diffusion.config import DiffusionConfig
from flows.pipelines.diffusion.encode import LatentFigures
from flows.pipelines.diffusion.encoders.given import network_digest
from flows.stages.attempt import Attempt
from flows.stages.record import Figures, Record
from flows.stages.shards import shards_uri
from flows.stages.stage import Stage
from flows.training.figures import TrainingFigures
from flows.training.stage import training_stage

if TYPE_CHECKING:
    from flows.training.task import TrainingTask


def train_stage(
    config: DiffusionConfig, latents: Record[LatentFigures], clip: Record[Figures], autoencoder: Record[Figures]
) -> Stage[TrainingFigures]:
    """Plan the stage. The weights are bound to both encoders and to the noise process."""

    def build_task(attempt: Attempt) -> TrainingTask:
        from flows.pipelines.diffusion.task import DiffusionTask

        return DiffusionTask(
            spec=config.train,
            index_uri=latents.output("index"),
            shards_uri=shards_uri(latents),
            scaling_factor=latents.figures.scaling_factor,
            empty_prompt_uri=latents.output("empty_prompt"),
        )

    return training_stage(
        "train", config, config.train, (latents,), build_task, bound_to=_bound_to(config, clip, autoencoder)
    )


def _bound_to(config: DiffusionConfig, clip: Record[Figures], autoencoder: Record[Figures]) -> dict[str, Any]:
    """Return what a noise predictor is of no use without, by field of the configuration."""
    return {
        "encode.clip": network_digest(clip),
        "encode.autoencoder": network_digest(autoencoder),
        **{f"train.noise.{name}": value for name, value in config.train.noise.model_dump(mode="json").items()},
    }
