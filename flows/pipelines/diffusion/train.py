"""Stage ``train``: latents and text states to the noise predictor's checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from flows.pipelines.diffusion.config import DiffusionConfig
from flows.pipelines.diffusion.encode import LatentFigures
from flows.pipelines.diffusion.encoders.given import network_digest
from flows.stages.attempt import Attempt
from flows.stages.record import Figures, Record
from flows.stages.shards import shards_uri
from flows.stages.stage import Stage
from flows.training.figures import TrainingFigures
from flows.training.initial import Meaning, prefixed
from flows.training.stage import training_stage
from unet_models.formats.diffusers_pipeline import read_noise, read_scaling_factor

if TYPE_CHECKING:
    from flows.training.task import TrainingTask


def train_stage(
    config: DiffusionConfig, latents: Record[LatentFigures], clip: Record[Figures], autoencoder: Record[Figures]
) -> Stage[TrainingFigures]:
    """Plan the stage. The weights are bound to both encoders and to the noise process."""
    classes = latents.figures.classes if config.train.model.num_class_embeds is not None else ()

    def build_task(attempt: Attempt) -> TrainingTask:
        from flows.pipelines.diffusion.task import DiffusionTask

        return DiffusionTask(
            spec=config.train,
            index_uri=latents.output("index"),
            shards_uri=shards_uri(latents),
            scaling_factor=latents.figures.scaling_factor,
            classes=classes,
            empty_prompt_uri=latents.output("empty_prompt"),
        )

    meaning = Meaning(
        classes=classes,
        bound_to=_bound_to(config, clip, autoencoder),
        made_for={
            **prefixed("train.model", config.train.model.model_dump(mode="json")),
            **_scale(latents.figures.scaling_factor),
        },
    )
    return training_stage(
        "train", config, config.train, (latents,), build_task, meaning=meaning, describe=describe_bundle
    )


def describe_bundle(bundle: Mapping[str, Any]) -> Meaning:
    """Read from the files beside a text-to-image model's weights what they stand for; none names the encoders.

    They are those of a registered model, or the configurations of the parts of a pipeline of diffusers.
    """
    if "scheduler" in bundle:
        noise = read_noise(bundle["scheduler"]) if bundle["scheduler"] else {}
        scale = _scale(read_scaling_factor(bundle["vae"])) if bundle["vae"] else {}
        return Meaning(bound_to=prefixed("train.noise", noise), made_for=scale)
    return Meaning(
        classes=tuple(bundle["classes"]),
        bound_to=prefixed("train.noise", bundle["noise"]),
        made_for=_scale(bundle["scaling_factor"]),
    )


def _scale(factor: float) -> dict[str, str]:
    """Return the scale of the latents, which is measured, or configured: another one is another size of all inputs."""
    return {"scaling factor of the latents": f"{factor:.2g}"}


def _bound_to(config: DiffusionConfig, clip: Record[Figures], autoencoder: Record[Figures]) -> dict[str, Any]:
    """Return what a noise predictor is of no use without, by field of the configuration."""
    unread = {"beta_start", "beta_end"} if config.train.noise.schedule == "cosine" else set()
    return {
        "encode.clip": network_digest(clip),
        "encode.autoencoder": network_digest(autoencoder),
        **prefixed("train.noise", config.train.noise.model_dump(mode="json", exclude=unread)),
    }
