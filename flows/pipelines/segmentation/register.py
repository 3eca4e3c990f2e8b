"""Stage ``register``: the segmentation model as MLflow keeps it."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict, Unpack

import numpy as np

from data_pipelines import storage
from data_pipelines.volumes.dicom_out import SUFFIX as DICOM_SUFFIX
from data_pipelines.volumes.formats.base import WRITTEN_SUFFIXES
from flows.metrics import METRICS
from flows.pipelines.segmentation.bundle import Bundle
from flows.pipelines.segmentation.config import SegmentationConfig
from flows.pipelines.segmentation.evaluate import SegmentationScores, build_bundle, evaluation_digest
from flows.pipelines.segmentation.shard import VolumeShardFigures
from flows.registry.bundle import WEIGHTS, write_bundle
from flows.registry.candidate import Candidate, ModelFiles
from flows.registry.champion import Champion, Compared
from flows.registry.models import READS_AHEAD
from flows.registry.register import RegistrationFigures, register_stage, write_exports
from flows.stages.record import EvaluationFigures, Figures, Record
from flows.stages.stage import Stage
from flows.training.figures import TrainingFigures

if TYPE_CHECKING:
    import pandas as pd
    from mlflow.models import ModelSignature

CODE = Path(__file__).with_name("pyfunc_model.py")
REQUIREMENTS = (
    "torch",
    "numpy",
    "scipy",
    "nibabel",
    "simpleitk",
    "pillow",
    "tifffile",
    "pydicom",
    "python-gdcm",
    "safetensors",
    "pydantic",
    "jaxtyping",
)
"""Distributions that the model's own code imports, and the decoder of compressed slices."""


def register_model(
    config: SegmentationConfig,
    shards: Record[VolumeShardFigures],
    training: Record[TrainingFigures],
    evaluation: Record[SegmentationScores],
) -> Stage[RegistrationFigures]:
    """Plan the stage."""

    def compare(champion: Champion, metric: str) -> Compared:
        from flows.pipelines.segmentation.champion import compare_with_champion

        return compare_with_champion(config, shards, evaluation, champion, metric)

    def write_files(folder: Path) -> ModelFiles:
        scores, bundle = evaluation.figures, build_bundle(config, shards.figures)
        chosen = bundle.with_choices(tta=scores.tta, temperatures=scores.temperatures)
        return write_model(folder, config, chosen, training.output("weights"))

    figures = shards.figures
    candidate = build_candidate(
        config,
        shards,
        evaluation,
        write_files=write_files,
        card=f"Trained for {training.figures.step} steps on {figures.num_train} cases of {figures.dataset}, scored on "
        f"{figures.num_val} held-out cases.",
        evaluation_data=evaluation_digest(config, shards),
        lineage=(shards, training, evaluation),
        run_key=training.key,
        step=training.figures.step,
        compare=compare,
    )
    return register_stage(config, candidate, (training, evaluation))


class CandidateFields(TypedDict):
    """Fields of ``Candidate`` that differ between one network and several."""

    write_files: Callable[[Path], ModelFiles]
    evaluation_data: str
    lineage: tuple[Record[Figures], ...]
    run_key: str
    step: int
    compare: Callable[[Champion, str], Compared]


def build_candidate(
    config: SegmentationConfig,
    shards: Record[VolumeShardFigures],
    evaluation: Record[EvaluationFigures],
    *,
    card: str,
    **fields: Unpack[CandidateFields],
) -> Candidate:
    """Build the candidate of one network, or of several that are registered as one.

    ``card`` is what the model card says of its origin.
    """
    return Candidate(
        description="Segmentation U-Nets trained by unetflow.",
        code=CODE,
        requirements=REQUIREMENTS,
        default_metric="dice",
        evaluation=evaluation,
        build_card=lambda: model_card(config, shards.figures, card, evaluation.figures.metrics),
        dataset=shards,
        metadata=input_facts(
            config.data.ndim, shards.figures.files_per_image, has_channel_numbers=shards.figures.has_channel_numbers
        ),
        **fields,
    )


def write_model(folder: Path, config: SegmentationConfig, bundle: Bundle, weights_uri: str) -> ModelFiles:
    """Write the bundle, the weights and their exports into a folder."""
    from flows.pipelines.segmentation.segmenter import Segmenter
    from unet_models.formats.trace import trace_unet

    write_bundle(folder, bundle)
    storage.copy(weights_uri, str(folder / WEIGHTS))
    if config.registry.export:
        segmenter = Segmenter.from_folder(folder, device="cpu")
        networks = {
            name: partial(trace_unet, each.model, each.bundle.num_inputs, each.bundle.labels.num_outputs)
            for name, each in segmenter.models.items()
        }
        write_exports(folder, networks, config.registry)
    return ModelFiles(signature(), input_example(bundle))


def input_facts(ndim: int, files_per_image: int, *, has_channel_numbers: bool) -> dict[str, Any]:
    """Return what prediction needs to know of a model's input before it loads the model."""
    numbers = {"ndim": ndim, "files_per_image": files_per_image, "has_channel_numbers": has_channel_numbers}
    return numbers | READS_AHEAD | {"label_suffixes": [*WRITTEN_SUFFIXES, DICOM_SUFFIX]}


def signature() -> ModelSignature:
    """Return the columns and parameters that the registered model takes."""
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, ParamSchema, ParamSpec, Schema
    from mlflow.types.schema import AnyType

    return ModelSignature(
        inputs=Schema(
            [
                ColSpec("string", "path", required=False),
                ColSpec(AnyType(), "image", required=False),
                ColSpec("string", "text", required=False),
                ColSpec("string", "sound", required=False),
                ColSpec("string", "output", required=False),
            ]
        ),
        outputs=Schema([ColSpec(AnyType())]),
        params=ParamSchema(
            [
                ParamSpec("memory_gb", "double", None),
                ParamSpec("probabilities", "boolean", False),
                ParamSpec("uncertainty", "boolean", False),
            ]
        ),
    )


def input_example(bundle: Bundle) -> pd.DataFrame:
    """Build a tiny image: it shows the shape of a request, and MLflow tries the model on it."""
    import pandas as pd

    shape = (len(bundle.channels), *(min(size, 8) for size in bundle.patch_size))
    return pd.DataFrame({"image": [(np.arange(math.prod(shape)) % 2).reshape(shape).astype(float).tolist()]})


def model_card(
    config: SegmentationConfig,
    shards: VolumeShardFigures,
    origin: str,
    metrics: dict[str, float],
) -> str:
    """Write the model card in Markdown: what it is, its ``origin``, how good it is and how to use it."""
    classes = list(shards.labels.targets)
    return "\n".join(
        [
            f"# {config.registry.name}",
            f"A {config.data.ndim}-D U-Net that segments {', '.join(classes)} in {', '.join(shards.channels)} "
            f"images. {origin} Scores are in the original geometry (surface Dice at "
            f"{config.evaluate.tolerance_mm:g} mm).",
            "",
            *_score_table(classes, metrics),
            config.train.selection_remark,
            "",
            "```python",
            "import mlflow",
            f'model = mlflow.pyfunc.load_model("models:/{config.registry.name}@champion")',
            'labels = model.predict({"path": ["image.nii.gz"]})[0]  # in the file\'s own geometry',
            "```",
            f"Labels: {shards.labels.describe()}. Not a medical device.",
        ]
    )


def _score_table(classes: list[str], metrics: dict[str, float]) -> list[str]:
    columns = [name for name, metric in METRICS.items() if metric.is_main and name in metrics]
    lines = [
        "| class | " + " | ".join(METRICS[name].titled for name in columns) + " |",
        "|---" * (len(columns) + 1) + "|",
    ]
    for name, suffix in [*((name, f"/{name}") for name in classes), ("mean", "")]:
        cells = [f"{metrics.get(column + suffix, float('nan')):.4f}" for column in columns]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return lines
