"""The steps of the diffusion pipeline. Stages are imported when they are planned: the command line starts fast."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.pipelines.diffusion.ablation import SKIPS
from flows.pipelines.diffusion.config import DiffusionConfig
from flows.stages.pipeline import Explainer, Pipeline, Records, Step

if TYPE_CHECKING:
    from flows.pipelines.diffusion.encode import LatentFigures
    from flows.pipelines.diffusion.evaluate import GenerationScores
    from flows.pipelines.diffusion.model import Trained
    from flows.registry.register import RegistrationFigures
    from flows.sharding.images import ImageShardFigures
    from flows.stages.stage import Stage
    from flows.training.figures import TrainingFigures


def check_given(config: DiffusionConfig) -> None:
    """Check the networks and files that the configuration names, before anything is computed."""
    from flows.pipelines.diffusion.encoders.given import check_given_networks

    check_given_networks(config)


def plan_shard(config: DiffusionConfig, done: Records) -> Stage[ImageShardFigures]:
    """Plan sharding: captioned images to shards."""
    from flows.sharding.images import shard_stage

    return shard_stage(config.data, config.storage_uri, config.compute.num_cpus)


def plan_clip(config: DiffusionConfig, done: Records) -> Stage[Any]:
    """Plan training the small CLIP, or adopting the given one. Raises where the classes do not fit the network."""
    from flows.pipelines.diffusion.encode import check_classes
    from flows.pipelines.diffusion.encoders.stages import clip_stage

    check_classes(config, done["shard"])
    return clip_stage(config, done["shard"])


def plan_autoencoder(config: DiffusionConfig, done: Records) -> Stage[Any]:
    """Plan training the autoencoder, or adopting the given one."""
    from flows.pipelines.diffusion.encoders.stages import autoencoder_stage

    return autoencoder_stage(config, done["shard"])


def plan_encode(config: DiffusionConfig, done: Records) -> Stage[LatentFigures]:
    """Plan encoding: images and captions to latents and text states."""
    from flows.pipelines.diffusion.encode import encode_stage

    return encode_stage(config, done["shard"], done["train_clip"], done["train_autoencoder"])


def plan_train(config: DiffusionConfig, done: Records) -> Stage[TrainingFigures]:
    """Plan training the noise predictor."""
    from flows.pipelines.diffusion.train import train_stage

    return train_stage(config, done["encode"], done["train_clip"], done["train_autoencoder"])


def plan_evaluate(config: DiffusionConfig, done: Records) -> Stage[GenerationScores]:
    """Plan evaluation: generated images, their scores and a report."""
    from flows.pipelines.diffusion.evaluate import evaluate_stage

    return evaluate_stage(config, _trained(done))


def plan_register(config: DiffusionConfig, done: Records) -> Stage[RegistrationFigures]:
    """Plan registration: checkpoint and scores to a registered model."""
    from flows.pipelines.diffusion.register import register_model

    return register_model(config, _trained(done), done["evaluate"])


def load_explainer(bundle: Path, class_name: str | None) -> Explainer:
    """Load a registered model to draw what its images attend to in their prompts."""
    from flows.pipelines.diffusion.explain import DiffusionExplainer

    return DiffusionExplainer(bundle, class_name)


def _trained(done: Records) -> Trained:
    from flows.pipelines.diffusion.model import Trained

    return Trained(done["shard"], done["train_clip"], done["train_autoencoder"], done["encode"], done["train"])


DIFFUSION = Pipeline(
    name="diffusion",
    config=DiffusionConfig,
    steps=(
        Step("shard", plan_shard, "Raw data to shards."),
        Step("train_clip", plan_clip, "Shards to a small CLIP, or the given one checked."),
        Step("train_autoencoder", plan_autoencoder, "Shards to an autoencoder, or the given one checked."),
        Step("encode", plan_encode, "Shards to latents and text states."),
        Step("train", plan_train, "Shards to a checkpoint."),
        Step("evaluate", plan_evaluate, "Checkpoint to scores and a report."),
        Step("register", plan_register, "Checkpoint and scores to a registered model."),
    ),
    check=check_given,
    load_explainer=load_explainer,
    ablations=(SKIPS,),
)
