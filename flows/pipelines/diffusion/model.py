"""From the records of trained networks to the text-to-image model that evaluation draws with and the registry keeps."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from data_pipelines import storage
from data_pipelines.specs import Spec
from flows.pipelines.diffusion.config import DiffusionConfig
from flows.pipelines.diffusion.encode import LatentFigures
from flows.pipelines.diffusion.encoders.given import network_folder
from flows.sharding.images import ImageShardFigures
from flows.stages.record import Figures, Record
from flows.training.figures import TrainingFigures
from unet_models.specs.denoisers import DenoiserSpec
from unet_models.specs.diffusion import Bundle, SampleSpec

if TYPE_CHECKING:
    from unet_models.networks.denoiser import Denoiser


@dataclass(frozen=True, slots=True)
class Trained:
    """Records of all stages up to the training of the noise predictor."""

    shards: Record[ImageShardFigures]
    clip: Record[Figures]
    autoencoder: Record[Figures]
    latents: Record[LatentFigures]
    training: Record[TrainingFigures]

    @property
    def records(self) -> tuple[Record[Figures], ...]:
        """Records in the order of the stages."""
        return self.shards, self.clip, self.autoencoder, self.latents, self.training


class Ingredients(Spec):
    """Locations of a model's parts, and what goes beside them; travels as JSON."""

    weights_uri: str
    clip_uri: str
    autoencoder_uri: str
    model: DenoiserSpec
    bundle: Bundle


def gather(config: DiffusionConfig, trained: Trained) -> Ingredients:
    """Collect the locations of the parts."""
    return Ingredients(
        weights_uri=trained.training.output("weights"),
        clip_uri=network_folder(trained.clip),
        autoencoder_uri=network_folder(trained.autoencoder),
        model=config.train.model,
        bundle=Bundle(
            noise=config.train.noise,
            sample=SampleSpec(**config.evaluate.model_dump(include=set(SampleSpec.model_fields))),
            latent_shape=trained.latents.figures.latent_shape,
            scaling_factor=trained.latents.figures.scaling_factor,
            classes=trained.latents.figures.classes if config.train.model.num_class_embeds is not None else (),
            image_condition=config.train.image_condition,
            background=config.data.background,
        ),
    )


def assemble(ingredients: Ingredients, folder: Path) -> Denoiser:
    """Write the model folder; return the noise predictor."""
    from safetensors.torch import load_file

    from flows.pipelines.diffusion.text_to_image import write_pipeline
    from unet_models.networks.build import build_denoiser

    denoiser = build_denoiser(ingredients.model)
    with storage.local_file(ingredients.weights_uri) as weights:
        denoiser.load_state_dict(load_file(weights))
    with (
        storage.local_folder(ingredients.clip_uri) as clip,
        storage.local_folder(ingredients.autoencoder_uri) as autoencoder,
    ):
        write_pipeline(folder, ingredients.bundle, denoiser, clip, autoencoder)
    return denoiser
