"""Every backbone of the diffusion pipeline under every set of conditions, on the latents of one run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from data_pipelines.loading.loader import step_loader
from flows.pipelines.diffusion.encode import LatentFigures
from flows.pipelines.diffusion.task import DiffusionTask
from flows.stages.record import Record, read_record
from flows.stages.shards import shards_uri
from tests.support.commands import run_here
from tests.support.project import Project
from tests.support.training import CPU, Recorder
from unet_models.specs.diffusion import DiffusionSpec
from unet_models.training.fit import fit
from unet_models.training.state import build_state

BACKBONES: dict[str, dict[str, Any]] = {
    "unet": {
        "channels": [16, 32],
        "attention_levels": [True, True],
        "num_res_blocks": 1,
        "num_heads": 2,
        "num_groups": 8,
    },
    "uvit": {"width": 48, "num_layers": 3, "num_heads": 2, "patch_size": 1},
    "dit": {"width": 48, "num_layers": 3, "num_heads": 2, "patch_size": 1},
}
TEXT, CLASS, IMAGE = "text", "class", "image"
EVERYTHING = (TEXT, CLASS, IMAGE)
CONDITIONS: list[tuple[str, tuple[str, ...]]] = [
    *(("unet", conditions) for conditions in ((), (TEXT,), (CLASS,), (IMAGE,), EVERYTHING)),
    *((backbone, conditions) for backbone in ("uvit", "dit") for conditions in ((), EVERYTHING)),
]
"""Backbone and conditions: every set of conditions once, none and all of them with every backbone."""
BASELINE = 1.0
"""Mean squared error of predicting no noise at all."""
MARGIN = 0.15


def training(
    backbone: str, conditions: tuple[str, ...], kind: str = "low_resolution", **changes: Any
) -> dict[str, Any]:
    """Return ``train`` of a small network of a backbone under some conditions."""
    model = BACKBONES[backbone] | {
        "backbone": backbone,
        "context_dim": 32 if TEXT in conditions else None,
        "num_class_embeds": 4 if CLASS in conditions else None,
        "in_channels": 9 if IMAGE in conditions else 4,
    }
    image = {"kind": kind, "factor": 2} if IMAGE in conditions else {}
    loop = {"global_batch_size": 16, "precision": "fp32", "validate_cases": 24, "log_every_steps": 100}
    return loop | {"model": model, "image_condition": image} | changes


def latents_of(project: Project) -> Record[LatentFigures]:
    (record,) = (project.storage / "encode").glob("*/record.json")
    found = read_record(str(record.parent), LatentFigures)
    assert found is not None
    return found


@pytest.mark.parametrize(("backbone", "conditions"), CONDITIONS, ids=str)
def test_every_backbone_beats_predicting_nothing_under_every_condition(
    backbone: str, conditions: tuple[str, ...], shapes_project: tuple[Project, dict[str, Any]]
) -> None:
    latents = latents_of(shapes_project[0])
    optimizer = {"learning_rate": 0.004, "clip_norm": 1.0, "schedule": "cosine"}
    spec = DiffusionSpec.model_validate(training(backbone, conditions, num_steps=30, optimizer=optimizer))
    task = DiffusionTask(
        spec=spec,
        index_uri=latents.output("index"),
        shards_uri=shards_uri(latents),
        scaling_factor=latents.figures.scaling_factor,
        classes=latents.figures.classes if CLASS in conditions else (),
        empty_prompt_uri=latents.output("empty_prompt"),
    )
    torch.manual_seed(0)
    opened = task.open(CPU, rank=0)
    assert opened.validate(opened.model)["val/loss"] == pytest.approx(BASELINE, abs=0.1), "it starts at zero"
    batches = step_loader(opened.batches, range(spec.num_steps))
    fit(build_state(opened.model, spec, CPU), opened.objective, batches, spec, Recorder())
    assert opened.validate(opened.model.eval())["val/loss"] < BASELINE - MARGIN


def run_conditioned(project: Project, backbone: str, conditions: tuple[str, ...], export: str) -> dict[str, Any]:
    """Run the pipeline with a backbone, trained for two steps, on the latents that are there."""
    train = training(backbone, conditions, kind="masked", num_steps=2, global_batch_size=8)
    change = (
        f"train={json.dumps(train)}",
        f"registry={{name: {backbone}, export: {export}}}",
        "evaluate.guidance_sweep=[]",
        "compute.num_workers=1",
    )
    result = project.run("register", str(project.config), *(word for each in change for word in ("--set", each)))
    cached = {stage["name"] for stage in result["stages"] if stage["cached"]}
    assert cached == {"shard", "train_clip", "train_autoencoder", "encode"}
    assert result["alias"] == "champion"
    return result


def test_a_transformer_through_the_whole_pipeline(shapes_project: tuple[Project, dict[str, Any]]) -> None:
    result = run_conditioned(shapes_project[0], "uvit", (TEXT,), "[]")
    assert {"caption_accuracy", "frechet_distance"} <= {name.partition("[")[0] for name in result["metrics"]}


def test_a_transformer_with_all_conditions_through_the_whole_pipeline(
    shapes_project: tuple[Project, dict[str, Any]], tmp_path: Path
) -> None:
    """Trained, evaluated, registered; then drawn from text, class and image by the model alone."""
    project, _ = shapes_project
    result = run_conditioned(project, "dit", EVERYTHING, "[onnx]")
    assert "caption_accuracy" in result["metrics"]
    assert "drawn from" in Path(result["report"]).read_text()
    half = Image.new("RGBA", (16, 16), (200, 10, 10, 255))
    half.paste((0, 0, 0, 0), (0, 0, 8, 16))
    half.save(tmp_path / "half.png")
    script = f"""
import json, mlflow, numpy as np
import pandas as pd
mlflow.set_tracking_uri({result["tracking_uri"]!r})
model = mlflow.pyfunc.load_model({result["model_uri"]!r})
hole = np.full((16, 16, 4), 255, np.uint8)
hole[:8, :, 3] = 0
table = pd.DataFrame({{"prompt": ["a small red circle"] * 4, "class": ["circle", "square", None, "circle"],
                      "image": [hole, hole, None, {str(tmp_path / "half.png")!r}]}})
np.save({str(tmp_path / "drawn.npy")!r}, np.stack(model.predict(table)))
from pathlib import Path
import flows
folder = Path(flows.__file__).parents[2] / "artifacts" / "bundle"
print(json.dumps({{"index": (folder / "model_index.json").exists(), "onnx": (folder / "onnx" / "dit.onnx").exists()}}))
"""
    assert project.consume(script) == {"index": False, "onnx": True}
    drawn = np.load(tmp_path / "drawn.npy")
    assert drawn.shape == (4, 16, 16, 3)
    assert len({image.tobytes() for image in drawn}) == 4


def test_another_number_of_classes_than_the_data_have(shapes_project: tuple[Project, dict[str, Any]]) -> None:
    project, _ = shapes_project
    words = ("train", str(project.config), "--set", "train.model.num_class_embeds=3")
    message = run_here(*words, environment={"UNETFLOW_STORAGE": str(project.storage)}).message
    assert "train.model.num_class_embeds (3) must be 4: the training images have 3 classes (circle, square" in message
