"""Stage ``register``: the text-to-image model as MLflow keeps it, a diffusers folder among its files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from flows.pipelines.diffusion.config import DiffusionConfig
from flows.pipelines.diffusion.evaluate import GenerationScores, evaluation_digest
from flows.pipelines.diffusion.model import Trained, assemble, gather
from flows.registry.candidate import Candidate, ModelFiles
from flows.registry.champion import Champion, Compared
from flows.registry.register import RegistrationFigures, register_stage, write_exports
from flows.stages.record import Record
from flows.stages.stage import Stage

if TYPE_CHECKING:
    from mlflow.models import ModelSignature

MIN_TRANSFORMERS, MIN_DIFFUSERS = "4.57", "0.35"
"""Versions that drew the same image from a bundle as this one, to the pixel; earlier ones were not tried."""
REQUIREMENTS = (
    "torch",
    "numpy",
    "pillow",
    "safetensors",
    "pydantic",
    "jaxtyping",
    "diffusers",
    "transformers",
    "tokenizers",
    "accelerate",
)
"""Distributions that the model's own code imports."""


def register_model(
    config: DiffusionConfig, trained: Trained, evaluation: Record[GenerationScores]
) -> Stage[RegistrationFigures]:
    """Plan the stage."""

    def write_files(folder: Path) -> ModelFiles:
        import pandas as pd

        from unet_models.formats.trace import trace_decoder, trace_denoiser
        from unet_models.networks.autoencoder import load_autoencoder

        denoiser = assemble(gather(config, trained), folder)
        if config.registry.export:
            networks = {
                config.train.model.backbone: lambda: trace_denoiser(denoiser),
                "vae_decoder": lambda: trace_decoder(load_autoencoder(folder / "vae")),
            }
            write_exports(folder, networks, config.registry)
        has_text = config.train.model.context_dim is not None
        example = {"seed": [0]} | ({"prompt": ["an image"]} if has_text else {})
        return ModelFiles(_signature(has_text=has_text), pd.DataFrame(example))

    def compare(champion: Champion, metric: str) -> Compared:
        from flows.pipelines.diffusion.champion import compare_with_champion

        return compare_with_champion(config, trained, evaluation, champion, metric)

    candidate = Candidate(
        description="Latent-diffusion models trained by unetflow: prompts to images.",
        code=Path(__file__).with_name("pyfunc_model.py"),
        requirements=REQUIREMENTS,
        default_metric="fid" if config.evaluate.inception_weights else "frechet_distance",
        evaluation_data=evaluation_digest(config, trained),
        evaluation=evaluation,
        lineage=(*trained.records, evaluation),
        run_key=trained.training.key,
        step=trained.training.figures.step,
        write_files=write_files,
        build_card=lambda: model_card(config, trained, evaluation.figures),
        compare=compare,
        dataset=trained.shards,
    )
    return register_stage(config, candidate, (*trained.records[1:], evaluation))


def model_card(config: DiffusionConfig, trained: Trained, evaluation: GenerationScores) -> str:
    """Write the model card in Markdown: what it is, what it was trained on, how good it is and how to use it."""
    shards, spec = trained.shards.figures, config.evaluate
    return "\n".join(
        [
            f"# {config.registry.name}",
            f"Generates {shards.resolution}x{shards.resolution} images for prompts: a latent-diffusion model "
            f"({config.train.model.backbone}, {config.train.noise.prediction_type}), trained for "
            f"{trained.training.figures.step} steps on {shards.num_train} images of {shards.dataset}, "
            f"cut to {', '.join(shards.buckets)}. "
            f"Evaluated on {evaluation.num_images} images "
            f"({spec.sampler}, {spec.num_inference_steps} steps, guidance {spec.guidance_scale:g}).",
            "",
            "| metric | value |",
            "|---|---|",
            *(f"| {name} | {value:.4f} |" for name, value in evaluation.metrics.items()),
            config.train.selection_remark,
            "",
            "```python",
            "import mlflow",
            f'model = mlflow.pyfunc.load_model("models:/{config.registry.name}@champion")',
            f"image = model.predict({_example(config)})[0]  # (height, width, 3) uint8",
            "```",
            _bundle_remark(config),
        ]
    )


def _example(config: DiffusionConfig) -> str:
    """Write the columns of a request with every condition of the model."""
    train = config.train
    conditions = {
        '"prompt": ["..."]': train.model.context_dim is not None,
        '"class": ["..."]': train.model.num_class_embeds is not None,
        '"image": ["a.png"]': train.image_condition.kind != "none",
    }
    return "{" + ", ".join([*(name for name, has in conditions.items() if has), '"seed": [0]']) + "}"


def _bundle_remark(config: DiffusionConfig) -> str:
    """Say whether diffusers loads the bundle."""
    from unet_models.formats.denoiser_folder import pipeline_obstacle

    if obstacle := pipeline_obstacle(config.train.model):
        return f"diffusers does not load the artifact `bundle`: {obstacle}."
    return (
        "The artifact `bundle` is a folder that `diffusers.StableDiffusionPipeline.from_pretrained` loads, "
        f"with transformers {MIN_TRANSFORMERS} and diffusers {MIN_DIFFUSERS} or later."
    )


def _signature(*, has_text: bool) -> ModelSignature:
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, Schema
    from mlflow.types.schema import AnyType

    # Any type: MLflow would refuse 7 as a double, and a column of whole numbers with a gap.
    numbers = ("seed", "num_inference_steps", "guidance_scale", "width", "height")
    return ModelSignature(
        inputs=Schema(
            [
                ColSpec("string", "prompt", required=has_text),
                ColSpec("string", "negative_prompt", required=False),
                ColSpec("string", "class", required=False),
                ColSpec(AnyType(), "image", required=False),
                *(ColSpec(AnyType(), name, required=False) for name in numbers),
                ColSpec("string", "output", required=False),
            ]
        ),
        outputs=Schema([ColSpec(AnyType())]),
    )
