"""Stage ``register`` of the second pipeline: the text-to-image model as MLflow keeps it, a diffusers folder within."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from data_pipelines import storage
from data_pipelines.digests import digest_of
from flows.pipelines.diffusion.config import DiffusionConfig
from flows.pipelines.diffusion.model import Trained, assemble, gather
from flows.registry.register import Candidate, register, write_exports
from flows.stages.record import Record
from flows.stages.stage import Stage

if TYPE_CHECKING:
    from mlflow.models import ModelSignature

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
"""What the model's own code imports; versions are those it was evaluated with."""


def register_stage(config: DiffusionConfig, trained: Trained, evaluation: Record) -> Stage:
    """Plan the stage."""

    def prepare(folder: Path) -> dict[str, Any]:
        import pandas as pd

        from unet_models.networks.autoencoder import load_autoencoder
        from unet_models.formats.export import trace_decoder, trace_denoiser

        denoiser = assemble(gather(config, trained), folder)
        if config.registry.export:
            networks = {
                "unet": lambda: trace_denoiser(denoiser),
                "vae_decoder": lambda: trace_decoder(load_autoencoder(folder / "vae")),
            }
            write_exports(folder, networks, config.registry)
        return {"signature": _signature(), "input_example": pd.DataFrame({"prompt": ["an image"], "seed": [0]})}

    weights = config.evaluate.inception_weights
    file_digest = storage.digest(weights) if weights else ""
    candidate = Candidate(
        description="Latent-diffusion models trained by unetflow: prompts to images.",
        code="diffusion/registered.py",
        requirements=REQUIREMENTS,
        default_metric="fid" if config.evaluate.inception_weights else "frechet_distance",
        # Distances are to the training images, in the space of that very CLIP, and depend on N and the seed.
        evaluation_data=digest_of(
            [trained.shards.digest, trained.clip.digest, config.evaluate.num_images, config.evaluate.seed, file_digest]
        ),
        card=lambda: model_card(config, trained.shards, trained.training, evaluation),
        prepare=prepare,
    )
    return register(config, candidate, *trained.records, evaluation)


def model_card(config: DiffusionConfig, shards: Record, training: Record, evaluation: Record) -> str:
    """Markdown that says what the model is, what it was trained on, how good it is and how to use it."""
    figures, spec = shards.figures, config.evaluate
    rows = [f"| {name} | {value:.4f} |" for name, value in evaluation.figures["metrics"].items()]
    return "\n".join(
        [
            f"# {config.registry.name}",
            f"Draws {figures['resolution']}x{figures['resolution']} images for prompts: a latent-diffusion U-Net "
            f"({config.train.noise.prediction_type}), trained for {training.figures['step']} steps on "
            f"{figures['num_train']} images of {figures['dataset']}, cut to {', '.join(figures['buckets'])}. "
            f"Evaluated on {evaluation.figures['num_images']} images "
            f"({spec.sampler}, {spec.num_inference_steps} steps, guidance {spec.guidance_scale:g}).",
            "",
            "| metric | value |",
            "|---|---|",
            *rows,
            "",
            "```python",
            "import mlflow",
            f'model = mlflow.pyfunc.load_model("models:/{config.registry.name}@champion")',
            'image = model.predict({"prompt": ["..."], "seed": [0]})[0]  # (height, width, 3) uint8',
            "```",
            "The artifact `bundle` is a folder that `diffusers.StableDiffusionPipeline.from_pretrained` loads.",
        ]
    )


def _signature() -> ModelSignature:
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, Schema
    from mlflow.types.schema import AnyType

    return ModelSignature(
        inputs=Schema(
            [
                ColSpec("string", "prompt"),
                ColSpec("string", "negative_prompt", required=False),
                # Any type: MLflow would refuse 7 as a double, and a column of whole numbers with a gap.
                ColSpec(AnyType(), "seed", required=False),
                ColSpec(AnyType(), "num_inference_steps", required=False),
                ColSpec(AnyType(), "guidance_scale", required=False),
                ColSpec(AnyType(), "width", required=False),
                ColSpec(AnyType(), "height", required=False),
                ColSpec("string", "output", required=False),
            ]
        ),
        outputs=Schema([ColSpec(AnyType())]),
    )
