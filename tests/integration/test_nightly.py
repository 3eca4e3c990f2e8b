"""Nights with a schedule: data that grow, a worse, an equal and a better model; one promotion, and reasons to read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
from PIL import Image

from flows.pipelines.segmentation.config import SegmentationConfig
from flows.pipelines.segmentation.shard import VolumeShardFigures
from flows.pipelines.segmentation.train import describe_bundle
from flows.stages.record import read_record
from flows.training.figures import TrainingFigures
from flows.training.origins import find_origin
from tests.support.project import Project

SERVER = "MLFLOW_TRACKING_URI"
CONFIG = """
registry: {{name: nightly, export: []}}
data: {{root: {root}, ndim: 2, num_folds: 2}}
train:
  patch_size: [32, 32]
  global_batch_size: 4
  num_steps: 12
  precision: fp32
  validate_cases: 0
  optimizer: {{learning_rate: 0.02}}
  model: {{channels: [8, 16], deep_supervision: 0}}
evaluate: {{tta: false}}
compute: {{num_workers: 1}}
"""


def add_cases(root: Path, numbers: range) -> None:
    """Write images of a bright disc in noise, and their masks."""
    for number in numbers:
        generator = np.random.default_rng(number)
        centre = generator.integers(10, 22, 2)[:, None, None]
        disc = np.hypot(*(np.indices((32, 32)) - centre)) < generator.integers(4, 9)
        image = generator.normal(80, 25, (32, 32)) + 60 * disc
        for folder, array in (("images", image.clip(0, 255)), ("masks", disc)):
            (root / folder).mkdir(parents=True, exist_ok=True)
            Image.fromarray(array.astype(np.uint8)).save(root / folder / f"case_{number:02d}.png")


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    home = tmp_path_factory.mktemp("home")
    return Project(home, CONFIG.format(root=home / "raw"))


@pytest.fixture(scope="module")
def nights(project: Project) -> dict[str, dict[str, Any]]:
    """The first night, then ten more cases with a model that is worse, better, and the same again."""
    run = ("run", str(project.config))
    better = ("--set", "train.num_steps=60", "--set", "train.init=models:/nightly/1")
    add_cases(project.home / "raw", range(8))
    found = {"first": project.run(*run)}
    add_cases(project.home / "raw", range(8, 18))
    found["worse"] = project.run(*run, "--set", "train.num_steps=1")
    found["better"] = project.run(*run, *better)
    found["equal"] = project.run(*run, *better, "--set", "registry.min_metrics={dice: 0.0}")
    return found


def test_one_promotion_and_two_challengers(nights: dict[str, dict[str, Any]]) -> None:
    assert {name: night["alias"] for name, night in nights.items()} == {
        "first": "champion",
        "worse": "challenger",
        "better": "champion",
        "equal": "challenger",
    }


def test_the_reasons_name_both_scores_on_the_grown_data(nights: dict[str, dict[str, Any]]) -> None:
    assert "there is no champion" in nights["first"]["reason"]
    assert nights["worse"]["reason"].startswith("not better beyond noise: dice")
    dice = nights["better"]["metrics"]["dice"]
    assert nights["better"]["reason"].startswith(f"better beyond noise: dice {dice:.4f} against the champion's")
    assert f"dice {dice:.4f} against the champion's {dice:.4f}" in nights["equal"]["reason"], "its own scores, found"


def test_both_models_were_scored_on_the_same_cases(project: Project, nights: dict[str, dict[str, Any]]) -> None:
    (register,) = [stage for stage in nights["better"]["stages"] if stage["name"] == "register"]
    (path,) = Path(register["uri"]).glob("*/comparison.parquet")
    rows = pq.read_table(path).to_pylist()
    evaluated = pq.read_table(Path(nights["better"]["report"]).parent / "cases.parquet").to_pylist()
    assert [(row["case"], row["class"], row["dice"]) for row in rows] == [
        (row["case_id"], row["class_name"], row["dice"]) for row in evaluated
    ]
    assert any(row["champion dice"] != row["dice"] for row in rows)
    assert "Case by case" in path.with_name("comparison.html").read_text()
    champions = list(project.storage.glob("evaluate_champion/*/record.json"))
    assert len(champions) == 1, "the first champion was scored once for both later models, the second one already"


def test_the_better_model_started_from_the_first_one(
    project: Project, nights: dict[str, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """And as the champion of these very cases it stands for that start: a night without new data is a cache hit."""
    stages = {stage["name"]: stage["uri"] for stage in nights["better"]["stages"]}
    training, shards = read_record(stages["train"], TrainingFigures), read_record(stages["shard"], VolumeShardFigures)
    assert training is not None
    assert shards is not None
    init = training.figures.init
    assert init is not None
    assert (init.origin.source, init.share, init.reinitialised, init.remarks) == ("models:/nightly/1", 1.0, (), ())
    assert not list(Path(stages["train"]).rglob("initial.safetensors")), "of no use any more"
    assert "models:/nightly/1" in Path(nights["better"]["report"]).read_text()
    seen = pq.read_table(training.output("trained_on"))["case_id"].to_pylist()
    assert len(seen) == len(set(seen)) == shards.figures.num_train

    monkeypatch.setenv(SERVER, f"sqlite:///{project.storage / 'mlflow.db'}")
    values = yaml.safe_load(project.config.read_text()) | {"storage": str(project.storage)}
    config, meaning = SegmentationConfig.model_validate(values), training.figures.meaning
    for wanted in ("champion", "models:/nightly@champion"):
        assert find_origin(config, wanted, [shards], meaning, describe_bundle) == init.origin
    itself = find_origin(config, "models:/nightly/3", [shards], meaning, describe_bundle)
    assert itself is not None
    assert itself.sha256 == training.outputs["weights"].sha256
    monkeypatch.setenv(SERVER, f"sqlite:///{project.home / 'other.db'}")
    assert find_origin(config, "champion", [shards], meaning, describe_bundle) is None, "there is no champion yet"
