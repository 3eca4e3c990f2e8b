"""The latent-diffusion pipeline on images of several aspect ratios, each trained on in a size near its own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from data_pipelines.shards import read_table
from tests.integration.project import ALONE, CHECKOUT, Project
from tests.integration.test_diffusion_pipeline import CONFIG

SIZES = {"wide": (50, 30), "tall": (30, 50), "square": (40, 40), "banner": (70, 18)}
BUCKETS = {"wide": "40x24", "tall": "24x40", "square": "32x32", "banner": "64x16"}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> tuple[Project, dict[str, Any]]:
    """An empty home in which the pipeline ran once."""
    folder = tmp_path_factory.mktemp("buckets")
    config = yaml.safe_load(CONFIG)
    config["data"] = {
        "root": str(write_images(folder / "images")),
        "resolution": 32,
        "crop": "buckets",
        "bucket_multiple": 8,
        "val_fraction": 0.3,
    }
    config["train"] |= {"num_steps": 8, "checkpoint_every_steps": 4}
    config["registry"] = {"name": "buckets", "export": []}
    (folder / "home").mkdir()
    found = Project(folder / "home", yaml.safe_dump(config))
    return found, found.unetflow("run", str(found.config))


def write_images(root: Path) -> Path:
    """Twelve images of each size, each with a caption beside it."""
    root.mkdir()
    rng = np.random.default_rng(0)
    for name, (width, height) in SIZES.items():
        for i in range(12):
            pixels = np.kron(rng.integers(0, 256, (2, 2, 3)), np.ones((height // 2, width // 2, 1))).astype(np.uint8)
            Image.fromarray(pixels).save(root / f"{name}{i}.png")
            (root / f"{name}{i}.txt").write_text(f"a {name} picture number {i}")
    return root


def test_every_image_is_encoded_in_the_size_nearest_to_its_own(project: tuple[Project, dict[str, Any]]) -> None:
    found, result = project
    shapes = {
        row["case_id"].rstrip("0123456789"): row["latent_shape"]
        for path in (found.storage / "latents").rglob("*.parquet")
        for row in read_table(str(path)).to_pylist()
    }
    assert shapes == {"wide": [4, 6, 10], "tall": [4, 10, 6], "square": [4, 8, 8], "banner": [4, 4, 16]}
    report = Path(result["report"]).read_text()
    for text in ("<h2>Sizes", "<h2>Buckets", *BUCKETS.values()):
        assert text in report


def test_registered_model_draws_any_size_as_diffusers_does(
    project: tuple[Project, dict[str, Any]], tmp_path: Path
) -> None:
    found, result = project
    sizes = [(64, 16), (32, 32), (24, 40), (32, 32)]
    (tmp_path / "sizes.json").write_text(json.dumps(sizes))
    script = (
        ALONE
        + f"""
import json, mlflow, numpy as np, torch
import pandas as pd
from pathlib import Path
mlflow.set_tracking_uri({result["tracking_uri"]!r})
model = mlflow.pyfunc.load_model("models:/buckets/{result["model_version"]}")
import flows
from diffusers import StableDiffusionPipeline
folder = Path(flows.__file__).parents[2] / "artifacts" / "bundle"
pipeline = StableDiffusionPipeline.from_pretrained(folder, local_files_only=True)
pipeline.set_progress_bar_config(disable=True)
sizes = json.load(open("sizes.json"))
table = pd.DataFrame({{"prompt": ["a wide picture"] * 4, "seed": range(4), "guidance_scale": [2.0] * 4,
                      "width": [w if w != 32 else None for w, h in sizes], "height": [h for w, h in sizes]}})
for seed, ((width, height), ours) in enumerate(zip(sizes, model.predict(table))):
    assert ours.shape == (height, width, 3), ours.shape
    theirs = pipeline("a wide picture", width=width, height=height, num_inference_steps=3, guidance_scale=2.0,
                      generator=torch.Generator().manual_seed(seed)).images[0]
    assert np.abs(np.asarray(theirs).astype(int) - ours).max() <= 1
    assert ours.std() > 0
try:
    model.predict(pd.DataFrame({{"prompt": ["x"], "width": [30]}}))
except ValueError as error:
    assert "width must be a multiple of 4 pixels, got 30" in str(error), error
else:
    raise AssertionError("30 is no multiple of 4")
"""
    )
    command = [sys.executable, "-c", script, str(CHECKOUT)]
    done = subprocess.run(command, env=found.environment, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_predict_takes_sizes_from_its_file(project: tuple[Project, dict[str, Any]], tmp_path: Path) -> None:
    found, result = project
    (tmp_path / "prompts.csv").write_text("prompt,width,height\na wide picture,40,24\na square picture,,\n")
    model = f"models:/buckets/{result['model_version']}"
    found.unetflow("predict", model, str(tmp_path / "prompts.csv"), str(tmp_path / "drawn"))
    assert [Image.open(tmp_path / f"drawn/{i}.png").size for i in range(2)] == [(40, 24), (32, 32)]
