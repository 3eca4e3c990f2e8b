"""Stage ``register`` of the first pipeline: the segmentation model as MLflow keeps it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from data_pipelines import storage
from flows.pipelines.segmentation.config import SegmentationConfig
from flows.registry.register import Candidate, held_out_digest, register, write_exports
from flows.pipelines.segmentation.bundle import build_bundle
from flows.stages.record import Record
from flows.stages.stage import Stage

if TYPE_CHECKING:
    import pandas as pd
    from mlflow.models import ModelSignature

REQUIREMENTS = ("torch", "numpy", "scipy", "nibabel", "pillow", "pydicom", "safetensors", "pydantic", "jaxtyping")
"""What the model's own code imports; versions are those it was evaluated with."""


def register_stage(config: SegmentationConfig, shards: Record, training: Record, evaluation: Record) -> Stage:
    """Plan the stage."""

    def prepare(folder: Path) -> dict[str, Any]:
        from flows.pipelines.segmentation.bundle import WEIGHTS, Bundle, write_bundle
        from flows.pipelines.segmentation.segmenter import Segmenter
        from unet_models.formats.export import trace_unet

        write_bundle(folder, Bundle.model_validate(build_bundle(config, shards)))
        storage.copy(training.output("weights"), str(folder / WEIGHTS))
        if config.registry.export:
            network = Segmenter.from_folder(folder, device="cpu").model
            sizes = len(shards.figures["channels"]), len(shards.figures["classes"])
            write_exports(folder, {"unet": lambda: trace_unet(network, *sizes)}, config.registry)
        return {"signature": _signature(), "input_example": _input_example(config, shards)}

    candidate = Candidate(
        description="Segmentation U-Nets trained by unetflow.",
        code="segmentation/registered.py",
        requirements=REQUIREMENTS,
        default_metric="dice",
        evaluation_data=held_out_digest(shards),
        card=lambda: model_card(config, shards, training, evaluation),
        prepare=prepare,
    )
    return register(config, candidate, shards, training, evaluation)


def _signature() -> ModelSignature:
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, Schema
    from mlflow.types.schema import AnyType

    return ModelSignature(
        inputs=Schema(
            [
                ColSpec("string", "path", required=False),
                ColSpec(AnyType(), "image", required=False),
                ColSpec("string", "output", required=False),
            ]
        ),
        outputs=Schema([ColSpec(AnyType())]),
    )


def _input_example(config: SegmentationConfig, shards: Record) -> pd.DataFrame:
    """A tiny image of zeros: it shows the shape of a request, and MLflow tries the model on it."""
    import pandas as pd

    shape = (len(shards.figures["channels"]), *(min(size, 8) for size in config.train.patch_size))
    return pd.DataFrame({"image": [np.zeros(shape).tolist()]})


def model_card(config: SegmentationConfig, shards: Record, training: Record, evaluation: Record) -> str:
    """Markdown that says what the model is, what it was trained on, how good it is and how to use it."""
    metrics = evaluation.figures["metrics"]
    figures = shards.figures
    classes = [name for name, value in figures["classes"].items() if value]
    columns = ("dice", "iou", "hd95_mm", "surface_dice")
    table = ["| class | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    for name in [*classes, "mean"]:
        suffix = "" if name == "mean" else f"/{name}"
        cells = [f"{metrics.get(column + suffix, float('nan')):.4f}" for column in columns]
        table.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(
        [
            f"# {config.registry.name}",
            f"A {config.data.ndim}-D U-Net that segments {', '.join(classes)} in {', '.join(figures['channels'])} "
            f"images. Trained for {training.figures['step']} steps on {figures['num_train']} cases of "
            f"{figures['dataset']}, scored on {figures['num_val']} held-out cases in their original geometry "
            f"(surface Dice at {config.evaluate.tolerance_mm:g} mm).",
            "",
            *table,
            "",
            "```python",
            "import mlflow",
            f'model = mlflow.pyfunc.load_model("models:/{config.registry.name}@champion")',
            'labels = model.predict({"path": ["image.nii.gz"]})[0]  # in the file\'s own geometry',
            "```",
            f"Labels: {', '.join(f'{value} {name}' for name, value in figures['classes'].items())}. "
            "Not a medical device.",
        ]
    )
