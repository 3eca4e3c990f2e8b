"""The restoration pipeline through the command line, for every task, each beside its baseline."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from data_pipelines.loading.loader import ImageSamples
from data_pipelines.shards.index import read_table
from data_pipelines.shards.reader import ShardReader
from flows.sharding.images import ImageShardFigures
from flows.stages.record import read_record
from flows.stages.shards import shards_uri
from tests.support.configs import TINY_RESTORATION
from tests.support.project import Project

COLOURS = ["train.optimizer.learning_rate=0.01", "train.num_steps=150"]
MARGINS = {
    "denoising": ("psnr", 4.0, ["task={name: denoising, sigma: 25}"]),
    "inpainting": ("psnr/hole", 1.0, ["task={name: inpainting}"]),
    "colourisation": ("psnr", 2.0, ["task={name: colourisation}", *COLOURS]),
    "colour_classes": ("psnr", 1.0, ["task={name: colourisation, output: classes, rebalance: 0.9}", *COLOURS]),
}
"""Metric of a task, by how many dB the network beats the baseline in it, and its settings."""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> tuple[Project, dict[str, Any]]:
    """An empty home in which the pipeline of super-resolution ran once."""
    found = Project(tmp_path_factory.mktemp("r"), TINY_RESTORATION)
    return found, found.run("register", str(found.config))


def test_super_resolution_beats_bicubic_and_says_so(project: tuple[Project, dict[str, Any]]) -> None:
    _, result = project
    assert [stage["name"] for stage in result["stages"]] == ["shard", "train", "evaluate", "register"]
    assert result["alias"] == "champion"
    metrics = result["metrics"]
    assert metrics["psnr"] > metrics["psnr/baseline"] + 0.3
    assert metrics["ssim"] > metrics["ssim/baseline"]
    report = Path(result["report"]).read_text()
    for text in ("Super resolution, evaluated on", "Better by", "Images before and after", "Worst: ", "Every image"):
        assert text in report


def test_registered_model_restores_what_evaluation_saw(project: tuple[Project, dict[str, Any]], tmp_path: Path) -> None:
    found, result = project
    evaluated = sorted((Path(result["report"]).parent / "restored").glob("*.png"))[:2]
    smaller = tmp_path / "small"
    smaller.mkdir()
    reader, held_out = open_shards(result)
    for path in evaluated:
        image = Image.fromarray(ImageSamples(reader).decode(held_out[path.stem]))
        image.resize((16, 16), Image.Resampling.BICUBIC).save(smaller / path.name)
    told = found.run("predict", _registered(result), str(smaller), str(tmp_path / "large"))
    assert (told["num_predicted"], told["failures"]) == (2, {})
    for path in evaluated:
        predicted, kept = (np.asarray(Image.open(p)).astype(int) for p in (tmp_path / "large" / path.name, path))
        assert predicted.shape == (32, 32, 3)
        assert np.abs(predicted - kept).mean() < 1, "Pillow shrinks to within a level of what evaluation did"
    script = f"""
import json, mlflow, numpy as np, onnxruntime, torch
import pandas as pd
from pathlib import Path
mlflow.set_tracking_uri({result["tracking_uri"]!r})
model = mlflow.pyfunc.load_model({_registered(result)!r})
import flows; assert "mlartifacts" in flows.__file__, flows.__file__  # the model's own copy
image = np.random.default_rng(0).integers(0, 256, (37, 22, 3))
(restored,) = model.predict({{"path": [{str(smaller / evaluated[0].name)!r}]}})
(large,) = model.predict(pd.DataFrame({{"image": [image.tolist()]}}))
assert large.shape == (74, 44, 3) and large.dtype == np.uint8
assert abs(restored.astype(int) - np.asarray(__import__("PIL.Image").Image.open(
    {str(tmp_path / "large" / evaluated[0].name)!r}))).max() == 0
for wrong, words in (({{"image": [image[:, :, :2].tolist()]}}, "(height, width, 3)"),
                     ({{"image": [(image / 255).tolist()]}}, "multiply by 255"),
                     ({{"path": [__file__ if "__file__" in dir() else sys.argv[1] + "/README.md"]}}, "unknown-format")):
    try:
        model.predict(pd.DataFrame(wrong))
    except ValueError as error:
        assert words in str(error), error
    except Exception as error:
        assert words in str(error), error
    else:
        raise AssertionError(words)
restorer = model.unwrap_python_model().restorer
folder = Path(flows.__file__).parents[2] / "artifacts" / "bundle"
inputs = np.random.default_rng(1).random((2, 3, 18, 12), np.float32)
with torch.no_grad():
    ours = restorer.model(torch.from_numpy(inputs)).numpy()
theirs = onnxruntime.InferenceSession(folder / "onnx" / "restorer.onnx").run(["images"], {{"inputs": inputs}})[0]
np.testing.assert_allclose(theirs, ours, rtol=0, atol=1e-5)
program = torch.export.load(folder / "torch_export" / "restorer.pt2").module()
np.testing.assert_allclose(program(inputs=torch.from_numpy(inputs)).detach().numpy(), ours, rtol=0, atol=1e-5)
print("{{}}")
"""
    found.consume(script)


def test_rerun_is_cache_hits_and_a_champion_is_measured_on_other_data(
    project: tuple[Project, dict[str, Any]],
) -> None:
    found, result = project
    again = found.run("register", str(found.config))
    assert all(stage["cached"] for stage in again["stages"])
    change = ("--set", "evaluate.seed=1", "--set", "evaluate.tile=16", "--set", "registry.export=[]")
    changed = found.run("register", str(found.config), *change)
    assert [stage["name"] for stage in changed["stages"] if not stage["cached"]] == ["evaluate", "register"]
    assert changed["metrics"] == pytest.approx(result["metrics"], abs=1e-3), "tiles are exact, nothing is drawn"
    assert "not better beyond noise: psnr" in changed["reason"]
    assert list(found.storage.glob("evaluate_champion/*/*/images.parquet"))
    other = found.run("evaluate", str(found.config), "--set", "task={name: denoising}", "--dry-run")
    assert [stage["done"] for stage in other["stages"]] == [True, False, False], "another task is another training"


@pytest.mark.parametrize("task", MARGINS)
def test_every_task_reaches_a_registered_model_that_beats_its_baseline(
    project: tuple[Project, dict[str, Any]], task: str
) -> None:
    found, shared = project
    metric, margin, settings = MARGINS[task]
    changes = [word for setting in (*settings, "registry.export=[]") for word in ("--set", setting)]
    result = found.run("register", str(found.config), *changes, "--set", f"registry.name=tiny-{task}")
    assert [stage["cached"] for stage in result["stages"]] == [True, False, False, False]
    name, _, part = metric.partition("/")
    baseline = f"{name}/baseline_{part}" if part else f"{name}/baseline"
    assert result["metrics"][metric] > result["metrics"][baseline] + margin
    assert result["alias"] == "champion"
    restored = sorted((Path(result["report"]).parent / "restored").glob("*.png"))
    _, held_out = open_shards(shared)
    assert {path.stem for path in restored} == set(held_out)
    assert np.asarray(Image.open(restored[0])).shape == (32, 32, 3)


def open_shards(result: dict[str, Any]) -> tuple[ShardReader, dict[str, int]]:
    """Open the shards of a run; also return the row of each held-out image by its key."""
    shards = read_record(result["stages"][0]["uri"], ImageShardFigures)
    assert shards is not None
    index = read_table(shards.output("index"))
    reader = ShardReader(index, shards_uri(shards))
    return reader, {reader.key(row): row for row, side in enumerate(index["split"].to_pylist()) if side == "val"}


def _registered(result: dict[str, Any]) -> str:
    return f"models:/{result['model_name']}/{result['model_version']}"
