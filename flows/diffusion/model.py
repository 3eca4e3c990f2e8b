"""From the records of trained networks to the text-to-image model that evaluation draws with and the registry keeps."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any

from data_pipelines import storage
from data_pipelines.specs import Spec
from flows.config import DiffusionConfig
from flows.diffusion.encoders import network_folder
from flows.stages import Record
from unet_models.diffusion_specs import DenoiserSpec, NoiseSpec, SampleSpec


class Ingredients(Spec):
    """Where the parts lie, and what goes beside them; travels as JSON."""

    weights_uri: str
    clip_uri: str
    autoencoder_uri: str
    model: DenoiserSpec
    noise: NoiseSpec
    sample: SampleSpec
    latent_shape: tuple[int, int, int]
    scaling_factor: float


def gather(
    config: DiffusionConfig, clip: Record, autoencoder: Record, latents: Record, training: Record
) -> Ingredients:
    """Name the parts."""
    return Ingredients(
        weights_uri=training.output("weights"),
        clip_uri=network_folder(clip),
        autoencoder_uri=network_folder(autoencoder),
        model=config.train.model,
        noise=config.train.noise,
        sample=SampleSpec(**config.evaluate.model_dump(include=set(SampleSpec.model_fields))),
        latent_shape=latents.figures["latent_shape"],
        scaling_factor=latents.figures["scaling_factor"],
    )


def assemble(ingredients: Ingredients, folder: Path) -> Any:
    """Write the pipeline folder; returns the denoiser."""
    from safetensors.torch import load_file

    from flows.diffusion.text_to_image import Bundle, write_pipeline
    from unet_models.denoiser import Denoiser

    denoiser = Denoiser(ingredients.model)
    with ExitStack() as stack:
        where, name = ingredients.weights_uri.rsplit("/", 1)
        weights, clip, autoencoder = (
            stack.enter_context(storage.local_folder(uri))
            for uri in (where, ingredients.clip_uri, ingredients.autoencoder_uri)
        )
        denoiser.load_state_dict(load_file(weights / name))
        bundle = Bundle(
            noise=ingredients.noise,
            sample=ingredients.sample,
            latent_shape=ingredients.latent_shape,
            scaling_factor=ingredients.scaling_factor,
        )
        write_pipeline(folder, bundle, denoiser, clip, autoencoder)
    return denoiser
