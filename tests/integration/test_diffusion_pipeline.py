"""The whole latent-diffusion pipeline through the command line, once, on generated shapes; then what reruns do."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from data_pipelines.shards.index import read_table
from data_pipelines.shards.reader import ShardReader
from tests.support.project import Project
from tests.support.serving import ask_served


@pytest.fixture(scope="module")
def project(shapes_project: tuple[Project, dict[str, Any]]) -> tuple[Project, dict[str, Any]]:
    """A home in which the pipeline ran once."""
    return shapes_project


def test_every_stage_is_done_and_says_what_it_found(project: tuple[Project, dict[str, Any]]) -> None:
    _, result = project
    names = ["shard", "train_clip", "train_autoencoder", "encode", "train", "evaluate", "register"]
    assert [stage["name"] for stage in result["stages"]] == names
    assert result["alias"] == "champion"
    metrics = result["metrics"]
    assert {"caption_accuracy", "caption_accuracy/held_out", "caption_accuracy/untrained", "psnr"} <= metrics.keys()
    assert {"frechet_distance[clip,n=12]", "frechet_distance[clip,n=12]/prior", "kid[clip,n=12]"} <= metrics.keys()
    assert not any(name.startswith("fid") for name in metrics), "no Inception weights were given"
    report = Path(result["report"]).read_text()
    for text in (
        "Samples by prompt",
        "Guidance",
        "From noise to image",
        "Nearest training images",
        "Autoencoder",
        "Attention to",
    ):
        assert text in report


def test_rerun_is_all_cache_hits_and_one_change_costs_what_depends_on_it(
    project: tuple[Project, dict[str, Any]],
) -> None:
    found, _ = project
    again = found.run("register", str(found.config))
    assert all(stage["cached"] for stage in again["stages"])
    change = ("--set", "evaluate.seed=1", "--set", "registry.export=[]")
    dry = found.run("run", str(found.config), *change, "--dry-run")
    assert [stage["name"] for stage in dry["stages"] if not stage["done"]] == ["evaluate", "register"]
    changed = found.run("register", str(found.config), *change, "--set", "compute.num_workers=1")
    assert [stage["name"] for stage in changed["stages"] if not stage["cached"]] == ["evaluate", "register"]
    assert "noise: frechet_distance" in changed["reason"]
    assert "against the champion's" in changed["reason"]
    assert "on the same 12 cases" in changed["reason"]
    (champion,) = found.storage.glob("evaluate_champion/*/*/units.safetensors")
    assert champion.stat().st_size, "the champion was drawn on the new prompts"


def test_registered_model_draws_what_evaluation_saw(project: tuple[Project, dict[str, Any]], tmp_path: Path) -> None:
    found, result = project
    samples = _samples(result)
    request = tmp_path / "request.json"
    names = ("prompt", "seed", "guidance_scale")
    request.write_text(json.dumps({name: [sample[name] for sample in samples[:4]] for name in names}))
    script = f"""
import json, mlflow, numpy as np
mlflow.set_tracking_uri({result["tracking_uri"]!r})
model = mlflow.pyfunc.load_model({_registered(result)!r})
import pandas as pd
images = model.predict(pd.DataFrame(json.load(open({str(request)!r}))))
np.save({str(tmp_path / "drawn.npy")!r}, np.stack(images))
import flows; assert "mlartifacts" in flows.__file__, flows.__file__  # the model's own copy
from pathlib import Path
from diffusers import StableDiffusionPipeline
import torch
folder = Path(flows.__file__).parents[2] / "artifacts" / "bundle"
pipeline = StableDiffusionPipeline.from_pretrained(folder, local_files_only=True)
pipeline.set_progress_bar_config(disable=True)
asked = json.load(open({str(request)!r}))
def theirs(prompt, seed, scale, negative=""):
    generator = torch.Generator().manual_seed(seed)
    found = pipeline(prompt, negative_prompt=negative, num_inference_steps=3, guidance_scale=scale, generator=generator)
    return np.asarray(found.images[0])
rows = zip(asked["prompt"], asked["seed"], asked["guidance_scale"])
np.save({str(tmp_path / "theirs.npy")!r}, np.stack([theirs(*row) for row in rows]))
# Whole numbers for a fraction, a gap among whole numbers, steps as floats.
odd = pd.DataFrame({{"prompt": ["a large red square"] * 2, "seed": [5, None], "guidance_scale": [3, 3],
                    "num_inference_steps": [3.0, 3.0], "negative_prompt": ["a small blue circle", None]}})
np.save({str(tmp_path / "odd.npy")!r}, np.stack(model.predict(odd)))
rows = [("a large red square", 5, 3.0, "a small blue circle"), ("a large red square", 0, 3.0)]
np.save({str(tmp_path / "odd_theirs.npy")!r}, np.stack([theirs(*row) for row in rows]))
import onnxruntime
drawer = model.unwrap_python_model().model
latents, states = torch.randn(3, 4, 6, 5), drawer.clip.text_states(["a", "large", "circle"])
latents, states, timesteps = latents.numpy(), states.numpy(), np.array([0, 500, 999], np.float32)
session = onnxruntime.InferenceSession(folder / "onnx" / "unet.onnx")
given = {{"noisy_latents": latents, "timesteps": timesteps, "encoder_hidden_states": states}}
with torch.no_grad():
    noise = drawer.denoiser(**{{name: torch.from_numpy(value) for name, value in given.items()}}).numpy()
np.testing.assert_allclose(session.run(["prediction"], given)[0], noise, rtol=0, atol=1e-4 * noise.std())
session = onnxruntime.InferenceSession(folder / "onnx" / "vae_decoder.onnx")
with torch.no_grad():
    images = drawer.autoencoder.decode(torch.from_numpy(latents) / drawer.bundle.scaling_factor).sample.numpy()
np.testing.assert_allclose(session.run(["images"], {{"latents": latents}})[0], images, rtol=0, atol=1e-4 * images.std())
print("{{}}")
"""
    found.consume(script)
    evaluated = np.stack([np.asarray(Image.open(io.BytesIO(sample["png"]))) for sample in samples[:4]])
    drawn, theirs = np.load(tmp_path / "drawn.npy"), np.load(tmp_path / "theirs.npy")
    np.testing.assert_array_equal(drawn, evaluated)
    assert evaluated.std() > 0
    odd, odd_theirs = np.load(tmp_path / "odd.npy"), np.load(tmp_path / "odd_theirs.npy")
    for ours, other in ((drawn, theirs), (odd, odd_theirs)):
        assert np.abs(other.astype(int) - ours).max() <= 1  # another order of the same sums
    assert (odd[0] != odd[1]).any()


def test_predict_draws_a_file_of_prompts_as_evaluation_did(
    project: tuple[Project, dict[str, Any]], tmp_path: Path
) -> None:
    found, result = project
    samples = _samples(result)[:3]
    prompts, drawn = tmp_path / "prompts.jsonl", tmp_path / "drawn"
    names = ("prompt", "seed", "guidance_scale")
    prompts.write_text("".join(json.dumps({name: sample[name] for name in names}) + "\n" for sample in samples))
    told = found.run("predict", _registered(result), str(prompts), str(drawn))
    assert (told["num_predicted"], told["failures"]) == (3, {})
    assert sorted(path.name for path in drawn.iterdir()) == ["0.png", "1.png", "2.png", "predictions.json"]
    for number, sample in enumerate(samples):
        image = np.asarray(Image.open(drawn / f"{number}.png")).astype(int)
        evaluated = np.asarray(Image.open(io.BytesIO(sample["png"])))
        assert np.abs(image - evaluated).max() <= 1  # drawn one by one, evaluated four at a time


def test_explain_draws_a_map_of_each_token(project: tuple[Project, dict[str, Any]], tmp_path: Path) -> None:
    found, result = project
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text(json.dumps({"prompt": "a large circle", "num_inference_steps": 2}))
    explained = found.run("explain", _registered(result), str(prompts), str(tmp_path / "explained"))
    assert explained["failures"] == {}
    folders = {Path(name).parts[1] for name in explained["files"]}
    assert folders == {"image.png", "01-a", "02-large", "03-circle"}
    (mean,) = (tmp_path / "explained").glob("*/02-large/mean.png")
    assert np.asarray(Image.open(mean)).std() > 0


def test_mlflow_serves_it_over_http(project: tuple[Project, dict[str, Any]], tmp_path: Path) -> None:
    found, result = project
    samples = _samples(result)[:2]
    rows = {name: [sample[name] for sample in samples] for name in ("prompt", "seed", "guidance_scale")}
    environment = found.environment | {"MLFLOW_TRACKING_URI": result["tracking_uri"]}
    for image, sample in zip(ask_served(_registered(result), rows, environment, tmp_path), samples, strict=True):
        evaluated = np.asarray(Image.open(io.BytesIO(sample["png"])))
        assert np.abs(np.asarray(image, int) - evaluated).max() <= 1  # two at once, evaluated four at a time


def test_latents_are_shards_that_webdataset_reads(project: tuple[Project, dict[str, Any]]) -> None:
    import webdataset

    found, _ = project
    tars = sorted(map(str, (found.storage / "latents").rglob("*.tar")))
    samples = list(webdataset.WebDataset(tars, shardshuffle=False).decode())
    assert len(samples) > 100
    assert samples[0]["moments.npy"].shape == (8, 4, 4)
    assert samples[0]["states.npy"].shape == (16, 32)


def test_images_do_not_depend_on_the_number_of_workers(project: tuple[Project, dict[str, Any]]) -> None:
    found, result = project
    samples = _samples(result)
    shutil.rmtree(found.storage / "evaluate")  # else the scores would be found, not computed
    alone = found.run("evaluate", str(found.config), "--set", "compute.num_workers=1")
    assert [stage["name"] for stage in alone["stages"] if not stage["cached"]] == ["evaluate"]
    assert _samples(alone) == samples
    assert alone["metrics"] == pytest.approx(result["metrics"], rel=1e-9, abs=1e-12)


def test_copies_are_searched_among_all_training_images(
    project: tuple[Project, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rest of the training images, which no distance is measured to, is searched on the actors."""
    found, result = project
    monkeypatch.setattr("flows.pipelines.diffusion.evaluation.asking.MAX_REAL", 40)
    shutil.rmtree(found.storage / "evaluate")
    searched = found.run("evaluate", str(found.config))
    for name in ("nearest_ratio[clip,n=12]", "nearer_than_held_out[clip,n=12]"):
        assert searched["metrics"][name] == pytest.approx(result["metrics"][name], rel=1e-9)
    assert searched["metrics"]["kid[clip,n=12]"] != result["metrics"]["kid[clip,n=12]"], "of 40 images"
    assert list(found.storage.glob("evaluate/*/*/queries.safetensors"))


def _registered(result: dict[str, Any]) -> str:
    """URI of the version that the run registered: who is champion may have changed."""
    return f"models:/{result['model_name']}/{result['model_version']}"


def _samples(result: dict[str, Any]) -> list[dict[str, Any]]:
    """Prompt, seed, guidance and PNG of the main set, by seed."""
    (folder,) = {Path(result["report"]).parent / "samples"}
    found = []
    for path in folder.glob("*.parquet"):
        index = read_table(str(path))
        reader = ShardReader(index, str(folder))
        found += [row | {"png": bytes(reader.read(i, "png"))} for i, row in enumerate(index.to_pylist())]
    kept = ("prompt", "seed", "guidance_scale", "png")
    return sorted(({name: sample[name] for name in kept} for sample in found), key=lambda s: s["seed"])
