"""Parts of the latent-diffusion stages that need no cluster."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from data_pipelines.errors import UserError
from data_pipelines.shards.writer import npy_bytes
from flows.pipelines.diffusion.config import DiffusionConfig
from flows.pipelines.diffusion.evaluation.drawing import Part, Result
from flows.pipelines.diffusion.encode import scaling_factor, square_latent_shape
from flows.pipelines.diffusion.encoders.stages import autoencoder_stage, check_given, clip_stage
from flows.pipelines.diffusion.evaluation.plan import plan_parts
from flows.pipelines.diffusion.evaluation.measures import measure
from flows.stages.record import Record
from flows.registry.tracking import metric_name
from unet_models.networks.attention import attend
from unet_models.networks.autoencoder import load_autoencoder
from unet_models.formats.clip_folder import Clip, save_clip
from unet_models.specs.encoders import AlignmentSpec
from unet_models.specs.diffusion import NoiseSpec, SampleSpec
from unet_models.sampling.samplers import draw_noise, sample_latents


def _config(**changes: object) -> DiffusionConfig:
    train = {"model": {"context_dim": 128, "channels": (32, 64), "attention_levels": (False, True)}}
    loops = {name: {"global_batch_size": 12} for name in ("train_clip", "train_autoencoder")}
    fixed = {"data": {"layout": "shapes"}, "train": {**train, "global_batch_size": 12}, **loops}
    return DiffusionConfig.model_validate(fixed | changes)


def test_scaling_factor_makes_latents_of_unit_variance() -> None:
    rng = np.random.default_rng(0)
    means, deviations = rng.normal(0.5, 2, (50, 4, 8, 8)), np.exp(rng.normal(-1, 0.3, (50, 4, 8, 8)))
    rows = [
        {"latent_mean": mean.mean(), "latent_square": (mean**2 + deviation**2).mean()}
        for mean, deviation in zip(means, deviations, strict=True)
    ]
    drawn = means + deviations * rng.standard_normal((200, *means.shape))
    assert (drawn * scaling_factor(rows)).std() == pytest.approx(1, rel=1e-3)


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_what_is_drawn_does_not_depend_on_the_number_of_workers(workers: int) -> None:
    columns = ["a"] * 30, ["train"] * 20 + ["val"] * 10, ["64x64"] * 30
    evaluate = {"num_images": 37, "batch_size": 4}
    plan = plan_parts(_config(evaluate=evaluate, compute={"num_workers": workers}), *columns)
    alone = plan_parts(_config(evaluate=evaluate, compute={"num_workers": 1}), *columns)
    for name in ("generated", "prior", "held_out"):
        requests = [[r for p in found.parts if p.name == name for r in p.requests] for found in (plan, alone)]
        assert requests[0] == requests[1]
    sizes = [len(part.requests) for part in plan.parts if part.name == "generated"]
    assert all(size % 4 == 0 for size in sizes[:-1]), "batches must begin at the same images"
    assert len({r.seed for part in plan.parts for r in part.requests if part.name == "generated"}) == 37


def test_real_captions_are_asked_for_in_turn() -> None:
    config = _config(data={"layout": "auto", "resolution": 32}, evaluate={"num_images": 8})
    plan = plan_parts(config, ["x", "a", "b", "c"], ["train", "val", "val", "val"], ["32x32"] * 4)
    assert plan.prompts == ["a", "b", "c", "a", "b", "c", "a", "b"]
    assert not any(part.checks for part in plan.parts)


@pytest.mark.parametrize("workers", [1, 3])
def test_with_buckets_an_image_has_the_size_of_its_captions_own(workers: int) -> None:
    data = {"layout": "auto", "resolution": 32, "crop": "buckets", "bucket_multiple": 8}
    evaluate = {"num_images": 40, "batch_size": 2, "num_shown": 2}
    config = _config(data=data, evaluate=evaluate, compute={"num_workers": workers})
    buckets = {"x": "40x24", "y": "40x24", "z": "32x32", "a": "64x16", "b": "32x32"}
    plan = plan_parts(config, [*buckets], ["train"] * 3 + ["val"] * 2, [*buckets.values()])
    drawn = [part for part in plan.parts if part.name == "generated"]
    for part in drawn:
        assert {(r.prompt, r.width, r.height) for r in part.requests} in ({("a", 64, 16)}, {("b", 32, 32)})
    batches = [part.requests[i : i + 2] for part in drawn for i in range(0, len(part.requests), 2)]
    assert len(batches) == 20, "whole ones, whatever the number of workers"
    (shown,) = (part for part in plan.parts if part.name == "sizes")
    assert [(r.width, r.height) for r in shown.requests] == [(40, 24), (32, 32)], "those trained on, the fullest first"
    assert len({r.seed for r in shown.requests}) == 1
    assert all(r.width is None for part in plan.parts if part.name == "grid" for r in part.requests)


def test_latents_of_the_square_from_those_of_any_bucket() -> None:
    assert square_latent_shape({"latent_shape": [4, 48, 80]}, {"bucket": "640x384"}, 512) == [4, 64, 64]
    assert square_latent_shape({"latent_shape": [16, 64, 64]}, {"bucket": "512x512"}, 512) == [16, 64, 64]


def test_metrics_of_equal_sets() -> None:
    rng = np.random.default_rng(0)
    features = {"near": rng.standard_normal((40, 3)).astype(np.float32)}
    features["far"] = features["near"] + 10

    def result(name: str, **more: object) -> Result:
        buffer = io.BytesIO()
        np.save(buffer, features[name])
        return Result.model_validate({"features": {"clip": base64.b64encode(buffer.getvalue()).decode()}, **more})

    rows = tuple(range(40))
    parts = [
        Part(name="generated", kind="draw"),
        Part(name="prior", kind="prior"),
        Part(name="train", kind="real", rows=rows),
        Part(name="val", kind="real", rows=rows),
    ]
    val = result("near", restored=result("near").features, squared_error=0.04)
    drawn = result("near", right=[[True], [True, False]], related=[True, False], alignment=[0.5, 0.7])
    metrics = measure(parts, [drawn, result("far"), result("near"), val]).metrics
    assert metrics["frechet_distance[clip,n=40]"] == pytest.approx(0, abs=1e-6)
    assert metrics["frechet_distance[clip,n=40]/prior"] == pytest.approx(300, rel=1e-5)
    assert metrics["precision[clip,n=40]"] == metrics["recall[clip,n=40]"] == 1
    assert metrics["caption_accuracy"] == pytest.approx(2 / 3)
    assert metrics["relation_accuracy"] == 0
    assert metrics["alignment[clip,n=2]"] == pytest.approx(0.6)
    assert metrics["psnr"] == pytest.approx(20)


def test_distances_of_inception_features_are_called_fid() -> None:
    rng = np.random.default_rng(0)
    text = {"inception": base64.b64encode(npy_bytes(rng.standard_normal((20, 3)).astype(np.float32))).decode()}
    parts = [Part(name=name, kind="draw", rows=tuple(range(20))) for name in ("generated", "prior", "train", "val")]
    results = [Result(features=text, restored=text if part.name == "val" else {}, squared_error=1) for part in parts]
    measured = measure(parts, results)
    assert {"fid[n=20]", "fid[n=20]/prior", "fid[n=20]/reconstruction"} <= measured.metrics.keys()
    assert not any(name.startswith("frechet") for name in measured.metrics)
    assert "Inception" in measured.protocol


def test_too_few_images_for_neighbours_still_have_a_distance() -> None:
    features = np.random.default_rng(0).standard_normal((3, 2)).astype(np.float32)
    text = {"clip": base64.b64encode(npy_bytes(features)).decode()}
    parts = [Part(name=name, kind="draw", rows=(0, 1, 2)) for name in ("generated", "prior", "train", "val")]
    metrics = measure(parts, [Result(features=text, restored=text) for _ in parts]).metrics
    assert metrics["frechet_distance[clip,n=3]"] == pytest.approx(0, abs=1e-6)
    assert not any(name.startswith(("precision", "kid")) for name in metrics)


def test_names_of_metrics_are_such_as_mlflow_takes() -> None:
    from mlflow.utils.validation import _validate_metric_name

    for name in ("frechet_distance[clip,n=100]/prior", "fid[n=5]", "dice/liver", "caption_accuracy/held_out"):
        _validate_metric_name(metric_name(name))
    assert metric_name("kid[clip,n=100]/prior") == "kid/clip-n100/prior"


@pytest.mark.parametrize("others", [16, 700])
@pytest.mark.parametrize("tokens", [64, 600])
def test_attention_is_that_of_torch_whatever_the_length(tokens: int, others: int) -> None:
    torch.manual_seed(0)
    query, key, value = (torch.randn(2, 3, n, 8) for n in (tokens, others, others))
    expected = F.scaled_dot_product_attention(query, key, value)
    torch.testing.assert_close(attend(query, key, value), expected)
    halves = (x.bfloat16() for x in (query, key, value))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = attend(*halves)
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.float(), expected, atol=0.02, rtol=0.05)


# --- sampling --------------------------------------------------------------------------------------------------------


class Leans(torch.nn.Module):
    """Predicts the mean of its context everywhere."""

    def forward(self, latents: torch.Tensor, timesteps: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
        return context.mean(dim=(1, 2)).view(-1, 1, 1, 1).expand_as(latents)


def _sample(scale: float, prompt: float, negative: float = 0.0, **spec: object) -> torch.Tensor:
    return sample_latents(
        Leans(),
        NoiseSpec(prediction_type="sample", schedule="cosine"),
        SampleSpec.model_validate({"num_inference_steps": 4, "guidance_scale": scale, **spec}),
        (1, 2, 2),
        [torch.Generator().manual_seed(1)],
        torch.full((1, 3, 5), prompt),
        torch.full((1, 3, 5), negative),
    )


@pytest.mark.parametrize(("scale", "wanted"), [(1.0, 0.5), (3.0, 1.5)])
def test_guidance_goes_beyond_the_prompt_by_its_scale(scale: float, wanted: float) -> None:
    found = _sample(scale, prompt=0.5, sampler="dpm_solver")
    torch.testing.assert_close(found, torch.full_like(found, wanted), atol=1e-2, rtol=0)


def test_guidance_starts_from_the_negative_prompt() -> None:
    found = _sample(2.0, prompt=0.5, negative=0.25)
    torch.testing.assert_close(found, torch.full_like(found, 0.75), atol=1e-2, rtol=0)


def test_noise_of_an_image_is_its_generators_alone() -> None:
    together = draw_noise((4, 2, 2), [torch.Generator().manual_seed(seed) for seed in (1, 2, 3)])
    alone = draw_noise((4, 2, 2), [torch.Generator().manual_seed(2)])
    assert torch.equal(together[1:2], alone)


# --- networks given as folders ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def clip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from unet_models.networks.clip import build_clip
    from unet_models.networks.tokenizer import train_tokenizer

    folder = tmp_path_factory.mktemp("clip")
    spec = AlignmentSpec(width=32, num_layers=1, num_heads=2, vector_size=8, num_tokens=12, vocab_size=560)
    tokenizer = train_tokenizer(["a cat", "a dog"], spec.vocab_size, spec.num_tokens)
    torch.manual_seed(0)
    save_clip(folder, build_clip(spec, tokenizer, 16), tokenizer, 16)
    return folder


def test_saved_clip_reads_images_as_it_was_trained_to(clip_folder: Path) -> None:
    from transformers import CLIPModel

    clip = Clip(clip_folder)
    images = torch.randint(0, 256, (2, 3, 16, 16), dtype=torch.uint8)
    towers = CLIPModel.from_pretrained(clip_folder)
    with torch.no_grad():
        pooled = towers.vision_model(pixel_values=images.float() / 127.5 - 1).pooler_output
        expected = F.normalize(towers.visual_projection(pooled), dim=-1)
    torch.testing.assert_close(clip.image_vectors(images), expected, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(clip.text_vectors(["a cat"]).norm(), torch.tensor(1.0))
    assert clip.text_states(["a cat", ""]).shape == (2, 12, 32)
    larger = torch.nn.functional.interpolate(images.float(), scale_factor=2).round().to(torch.uint8)
    assert F.cosine_similarity(clip.image_vectors(larger), expected).min() > 0.95


def test_given_networks_are_adopted_where_they_lie(clip_folder: Path, tmp_path: Path) -> None:
    from flows.stages.stage import run_stage
    from unet_models.networks.autoencoder import build_autoencoder
    from unet_models.specs.encoders import AutoencoderSpec

    vae = tmp_path / "vae"
    build_autoencoder(AutoencoderSpec(channels=(8, 8)), 16).save_pretrained(vae)
    config = _config(encode={"clip": str(clip_folder), "autoencoder": str(vae)})
    shards = Record(stage="shard", key="k", uri="/nowhere", outputs={}, figures={}, seconds=0)
    for stage in (clip_stage(config, shards), autoencoder_stage(config, shards)):
        record = run_stage(stage, str(tmp_path / "storage")).record
        assert Path(record.output("config.json")).parent in (clip_folder, vae)
        assert "model.safetensors" in record.outputs or "diffusion_pytorch_model.safetensors" in record.outputs


@pytest.mark.parametrize("field", ["clip", "autoencoder"])
def test_folders_without_a_network_are_refused(field: str, tmp_path: Path) -> None:
    config = _config(encode={field: str(tmp_path)})
    shards = Record(stage="shard", key="k", uri="/nowhere", outputs={}, figures={}, seconds=0)
    plan = clip_stage if field == "clip" else autoencoder_stage
    with pytest.raises(ValueError, match=f"encode.{field}: .*{tmp_path.name}"):
        plan(config, shards)


def test_other_networks_are_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "bert", "_class_name": "VQModel"}')
    with pytest.raises(ValueError, match="model_type is 'bert'"):
        Clip(tmp_path)
    with pytest.raises(ValueError, match="_class_name is 'VQModel'"):
        load_autoencoder(tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"encode": {"clip": "CLIP"}}, "context_dim is 128, the states of encode.clip are 32 wide"),
        ({"encode": {"clip": "TEXT"}}, "has no image tower"),
        ({"encode": {"autoencoder": "VAE"}}, "in_channels and out_channels are 4 and 4, the latents .* have 16"),
        ({"data": {"resolution": 12}, "encode": {"autoencoder": "HALVES", "clip": "GOOD"}}, "multiple of 8: .* by 2"),
        (
            {
                "data": {"resolution": 24, "crop": "buckets", "bucket_multiple": 12},
                "encode": {"autoencoder": "HALVES", "clip": "GOOD"},
            },
            r"data.bucket_multiple \(12\) must be a multiple of 8: encode.autoencoder shrinks images by 2",
        ),
        ({"evaluate": {"inception_weights": "/nowhere.pth"}}, "/nowhere.pth is not a file"),
    ],
)
def test_given_networks_must_fit_before_anything_runs(
    changes: dict[str, dict[str, object]], message: str, tmp_path: Path
) -> None:
    described = {
        "CLIP": {"model_type": "clip", "text_config": {"hidden_size": 32}},
        "GOOD": {"model_type": "clip", "text_config": {"hidden_size": 128}},
        "TEXT": {"model_type": "clip_text_model", "hidden_size": 128},
        "VAE": {"latent_channels": 16, "block_out_channels": [8]},
        "HALVES": {"latent_channels": 4, "block_out_channels": [8, 8]},
    }
    for name, config in described.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(json.dumps(config))
    encode = {field: str(tmp_path / str(name)) for field, name in changes.get("encode", {}).items()}
    data = {"layout": "shapes"} | changes.get("data", {})
    with pytest.raises(UserError, match=message):
        check_given(_config(**{**changes, "encode": encode, "data": data}))
