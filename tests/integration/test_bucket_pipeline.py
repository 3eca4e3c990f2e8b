"""The latent-diffusion pipeline on images of several aspect ratios, each trained on in a size near its own.

The CLIP is a given one; the autoencoder is trained.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from data_pipelines.loading.loader import ImageSamples
from data_pipelines.shards.index import MOMENTS, STATES, read_table
from data_pipelines.shards.reader import ShardReader
from tests.support.commands import run_here
from tests.support.configs import TINY_SHAPES
from tests.support.encoders import write_clip
from tests.support.project import Project
from unet_models.formats.clip_folder import Clip
from unet_models.networks.autoencoder import load_autoencoder
from unet_models.sampling.pixels import scale_images

SIZES = {"wide": (50, 30), "tall": (30, 50), "square": (40, 40), "banner": (70, 18)}
BUCKETS = {"wide": "40x24", "tall": "24x40", "square": "32x32", "banner": "64x16"}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> tuple[Project, dict[str, Any]]:
    """An empty home in which the pipeline ran once."""
    folder = tmp_path_factory.mktemp("buckets")
    config = yaml.safe_load(TINY_SHAPES)
    config["data"] = {
        "root": str(write_images(folder / "images")),
        "resolution": 32,
        "crop": "buckets",
        "bucket_multiple": 8,
        "val_fraction": 0.3,
    }
    config["encode"] = {"clip": str(write_clip(folder / "clip", 32))}
    config["train"] |= {"num_steps": 8, "checkpoint_every_steps": 4}
    config["registry"] = {"name": "buckets", "export": []}
    (folder / "home").mkdir()
    found = Project(folder / "home", yaml.safe_dump(config))
    return found, found.run("register", str(found.config))


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
    assert any(name.startswith("frechet_distance") and name.endswith("/reconstruction") for name in result["metrics"])
    assert shapes == {"wide": [4, 6, 10], "tall": [4, 10, 6], "square": [4, 8, 8], "banner": [4, 4, 16]}
    report = Path(result["report"]).read_text()
    for text in ("<h2>Sizes", "<h2>Buckets", *BUCKETS.values()):
        assert text in report


def test_latents_are_those_of_their_own_image_and_caption(project: tuple[Project, dict[str, Any]]) -> None:
    found, _ = project
    (autoencoder_config,) = (found.storage / "train_autoencoder").rglob("folder/config.json")
    clip, autoencoder = Clip(found.home.parent / "clip"), load_autoencoder(autoencoder_config.parent)
    pictures, latents = (_sharded(found.storage / name) for name in ("shards", "latents"))
    assert pictures.keys() == latents.keys()
    for name in ("wide3", "tall0", "square11", "banner7"):
        row, reader, i = pictures[name]
        pixels = scale_images(ImageSamples(reader).pixels([i]))
        _, encoded, j = latents[name]
        with torch.no_grad():
            moments = autoencoder.encode(pixels).latent_dist.parameters[0].numpy()
            states = clip.text_states([row["caption"]])[0].numpy()
        np.testing.assert_allclose(encoded.array(j, MOMENTS), moments, rtol=2e-3, atol=2e-3)  # kept in half precision
        np.testing.assert_allclose(encoded.array(j, STATES), states, rtol=2e-3, atol=2e-3)
    (empty,) = (found.storage / "encode").rglob("empty_prompt.npy")
    np.testing.assert_allclose(np.load(empty), clip.text_states([""])[0].detach().numpy(), rtol=2e-3, atol=2e-3)


def _sharded(folder: Path) -> dict[str, tuple[dict[str, Any], ShardReader, int]]:
    """case_id -> its row, and where to read it."""
    samples = {}
    for path in folder.rglob("*.parquet"):
        reader = ShardReader(read_table(str(path)), str(path.parent))
        samples |= {row["case_id"]: (row, reader, i) for i, row in enumerate(read_table(str(path)).to_pylist())}
    return samples


def test_every_fault_of_the_images_is_named(project: tuple[Project, dict[str, Any]], tmp_path: Path) -> None:
    found, _ = project
    root = write_images(tmp_path / "images")
    (root / "wide0.png").write_bytes((root / "wide0.png").read_bytes()[:60])
    (root / "tall0.txt").unlink()
    (root / "tall1.txt").write_bytes(b"\xff\xfe\x00")
    (root / "tall2.txt").write_text("  ")
    message = run_here("shard", str(found.config), "--set", f"data.root={root}").message
    for name in ("wide0.png", "tall0", "tall1", "tall2"):
        assert name in message


def test_registered_model_draws_any_size_as_diffusers_does(
    project: tuple[Project, dict[str, Any]], tmp_path: Path
) -> None:
    found, result = project
    sizes = [(64, 16), (32, 32), (24, 40), (32, 32)]
    (tmp_path / "sizes.json").write_text(json.dumps(sizes))
    script = f"""
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
sizes = json.load(open(sys.argv[2]))
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
print("{{}}")
"""
    found.consume(script, str(tmp_path / "sizes.json"))
