"""Stage ``register``: the restoration model as MLflow keeps it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from data_pipelines import storage
from flows.metrics import METRICS
from flows.pipelines.restoration.clips import clip_facts
from flows.pipelines.restoration.config import RestorationConfig
from flows.pipelines.restoration.evaluate import RestorationScores, build_bundle, evaluation_digest
from flows.registry.bundle import WEIGHTS, write_bundle
from flows.registry.candidate import Candidate, ModelFiles
from flows.registry.champion import Champion, Compared
from flows.registry.register import RegistrationFigures, register_stage, write_exports
from flows.sharding.images import ImageShardFigures
from flows.stages.record import Record
from flows.stages.stage import Stage
from flows.training.figures import TrainingFigures
from unet_models.specs.restoration import InpaintingSpec, TaskSpec

if TYPE_CHECKING:
    import pandas as pd
    from mlflow.models import ModelSignature

REQUIREMENTS = ("torch", "numpy", "pillow", "safetensors", "pydantic", "jaxtyping")
"""Distributions that the model's own code imports."""


def register_model(
    config: RestorationConfig,
    shards: Record[ImageShardFigures],
    training: Record[TrainingFigures],
    evaluation: Record[RestorationScores],
) -> Stage[RegistrationFigures]:
    """Plan the stage."""

    def write_files(folder: Path) -> ModelFiles:
        from flows.pipelines.restoration.image_restorer import ImageRestorer
        from unet_models.formats.trace import trace_restorer

        write_bundle(folder, build_bundle(config))
        storage.copy(training.output("weights"), str(folder / WEIGHTS))
        if config.registry.export:
            restorer = ImageRestorer.from_folder(folder, device="cpu").model
            write_exports(folder, {"restorer": lambda: trace_restorer(restorer)}, config.registry)
        return ModelFiles(_signature(), _input_example(config.task))

    def compare(champion: Champion, metric: str) -> Compared:
        from flows.pipelines.restoration.champion import compare_with_champion

        return compare_with_champion(config, shards, evaluation, champion, metric)

    candidate = Candidate(
        description="Image-restoration U-Nets trained by unetflow.",
        code=Path(__file__).with_name("pyfunc_model.py"),
        requirements=REQUIREMENTS,
        default_metric=config.main_metric,
        evaluation_data=evaluation_digest(config, shards),
        evaluation=evaluation,
        lineage=(shards, training, evaluation),
        run_key=training.key,
        step=training.figures.step,
        write_files=write_files,
        build_card=lambda: model_card(config, shards.figures, training.figures, evaluation.figures),
        compare=compare,
        dataset=shards,
        metadata={"takes": "pictures", **clip_facts(config.data)},
    )
    return register_stage(config, candidate, (training, evaluation))


def model_card(
    config: RestorationConfig, shards: ImageShardFigures, training: TrainingFigures, evaluation: RestorationScores
) -> str:
    """Write the model card in Markdown: what it is, what it was trained on, how good it is and how to use it."""
    shown = [(METRICS[name], value) for name, value in evaluation.metrics.items() if METRICS[name].is_main]
    return "\n".join(
        [
            f"# {config.registry.name}",
            f"A U-Net for {config.task.name.replace('_', ' ')} of RGB images. Trained for {training.step} steps on "
            f"{shards.num_train} images of {shards.dataset}, scored on {evaluation.num_images} held-out images; the "
            "baseline restores without a network.",
            "",
            "| metric | mean |",
            "|---|---|",
            *(f"| {metric.titled} | {value:.{metric.decimals or 4}f} |" for metric, value in shown),
            config.train.selection_remark,
            "",
            "```python",
            "import mlflow",
            f'model = mlflow.pyfunc.load_model("models:/{config.registry.name}@champion")',
            'image = model.predict({"path": ["image.png"]})[0]  # (height, width, 3) uint8',
            "```",
        ]
    )


def _signature() -> ModelSignature:
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, Schema
    from mlflow.types.schema import AnyType

    return ModelSignature(
        inputs=Schema(
            [
                ColSpec("string", "path", required=False),
                ColSpec(AnyType(), "image", required=False),
                ColSpec(AnyType(), "mask", required=False),
                ColSpec("string", "output", required=False),
            ]
        ),
        outputs=Schema([ColSpec(AnyType())]),
    )


def _input_example(task: TaskSpec) -> pd.DataFrame:
    """Build a tiny image, and a hole of it: it shows the shape of a request, and MLflow tries the model on it."""
    import pandas as pd

    side = 8
    example = {"image": [(np.arange(side * side * 3) % 256).reshape(side, side, 3).tolist()]}
    if isinstance(task, InpaintingSpec):
        example["mask"] = [np.eye(side, dtype=int).tolist()]
    return pd.DataFrame(example)
