"""A multimodal U-Net through the whole pipeline: each modality may be missing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from data_pipelines.volumes.scenes import write_scenes
from tests.support.project import Project

CONFIG = """
registry: {name: tiny-scenes, export: []}
data: {layout: scenes, ndim: 2, num_phantoms: 120}
train:
  patch_size: [32, 32]
  global_batch_size: 16
  num_steps: 300
  validate_cases: 0
  loss: {batch_dice: true}
  augment: {p_rotate: 0, p_scale: 0, p_blur: 0, p_brightness: 0, p_contrast: 0, p_low_resolution: 0, p_gamma: 0}
  model: {channels: [8, 16, 32], fusion: {text_bytes: 16, sound_seconds: 0.25, width: 32}}
evaluate: {tta: false}
compute: {num_workers: 1}
"""
GUESS = 0.1
"""Dice of the best constant label: a shape covers about a twentieth of its image."""

PARTS = ("image", "image,sound", "image,text", "sound", "text", "text,sound")


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> tuple[Project, dict[str, Any]]:
    found = Project(tmp_path_factory.mktemp("m"), CONFIG)
    return found, found.run("register", str(found.config))


def test_it_beats_a_guess_and_the_image_alone(project: tuple[Project, dict[str, Any]]) -> None:
    """By far; so few steps teach it to use the sound. (`flows/configs/scenes.yaml` trains until the text counts.)"""
    metrics = project[1]["metrics"]
    parts = {name: value for name, value in metrics.items() if name.startswith("dice[")}
    assert parts.keys() == {f"dice[{each}]" for each in PARTS}
    assert metrics["dice"] > GUESS + 0.3
    assert metrics["dice"] > parts["dice[image]"] + 0.15


def test_the_registered_model_reads_the_files_beside_the_image(
    project: tuple[Project, dict[str, Any]], tmp_path: Path
) -> None:
    import mlflow

    _, result = project
    scenes = write_scenes(tmp_path / "scenes", 2, seed=1)
    rows = {
        name: [str(scenes / folder / f"scene_0000{ending}")]
        for name, folder, ending in (("path", "images", ".png"), ("text", "texts", ".txt"), ("sound", "sounds", ".wav"))
    }
    mlflow.set_tracking_uri(result["tracking_uri"])
    model = mlflow.pyfunc.load_model(result["model_uri"])
    labels = model.predict(rows)[0]
    assert labels.shape == (32, 32)
    alone = model.predict({"path": rows["path"]})[0]
    assert labels.sum() > 0
    assert (labels != alone).any()
