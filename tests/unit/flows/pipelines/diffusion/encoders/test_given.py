"""Encoders given as folders: adopted where they lie, or refused before anything runs."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from data_pipelines.errors import UserError, WeightsError
from flows.pipelines.diffusion.config import DiffusionConfig
from flows.pipelines.diffusion.encoders import given
from flows.pipelines.diffusion.encoders.given import check_given_networks, network_digest, network_folder
from flows.pipelines.diffusion.encoders.stages import autoencoder_stage, clip_stage
from flows.stages.stage import run_stage
from flows.training.figures import TrainingFigures
from tests.support.diffusion import SHARDS, diffusion_config
from tests.support.records import finished
from unet_models.formats.clip_folder import save_clip
from unet_models.networks.autoencoder import build_autoencoder
from unet_models.networks.clip import build_clip
from unet_models.networks.tokenizer import train_tokenizer
from unet_models.specs.encoders import AlignmentSpec, AutoencoderSpec

TRAINED = TrainingFigures(step=1, run_id=None, num_workers=1)


@pytest.fixture(scope="module")
def clip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clip")
    spec = AlignmentSpec(width=32, num_layers=1, num_heads=2, vector_size=8, num_tokens=12, vocab_size=560)
    tokenizer = train_tokenizer(["a cat", "a dog"], spec.vocab_size, spec.num_tokens)
    torch.manual_seed(0)
    save_clip(folder, build_clip(spec, tokenizer, 16), tokenizer, 16)
    return folder


def test_given_networks_are_adopted_where_they_lie(clip_folder: Path, tmp_path: Path) -> None:
    vae = tmp_path / "vae"
    build_autoencoder(AutoencoderSpec(channels=(8, 8)), 16).save_pretrained(vae)
    config = diffusion_config(encode={"clip": str(clip_folder), "autoencoder": str(vae)})
    shards = finished("shard", SHARDS)
    for stage, folder in ((clip_stage(config, shards), clip_folder), (autoencoder_stage(config, shards), vae)):
        record = run_stage(stage, str(tmp_path / "storage")).record
        assert network_folder(record) == str(folder)
        assert record.figures.folder == str(folder)
        assert "model.safetensors" in record.outputs or "diffusion_pytorch_model.safetensors" in record.outputs
        assert not any(name.endswith((".bin", ".pt", ".pkl")) for name in record.outputs)


def test_other_weights_are_another_stage(clip_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "clip"
    folder.mkdir()
    for path in clip_folder.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    shards = finished("shard", SHARDS)
    original, copied = (
        clip_stage(diffusion_config(encode={"clip": str(place)}), shards).key for place in (clip_folder, folder)
    )
    assert original == copied, "it is the bytes that count, not the place"
    (folder / "config.json").write_text((folder / "config.json").read_text() + "\n")
    assert clip_stage(diffusion_config(encode={"clip": str(folder)}), shards).key != original


@pytest.mark.parametrize("field", ["clip", "autoencoder"])
def test_folders_without_a_network_are_refused(field: str, tmp_path: Path) -> None:
    config = diffusion_config(encode={field: str(tmp_path)})
    plan = clip_stage if field == "clip" else autoencoder_stage
    with pytest.raises(WeightsError, match=f"encode.{field}: .*{tmp_path.name}"):
        plan(config, finished("shard", SHARDS))
    with pytest.raises(WeightsError, match=f"encode.{field}: .*{tmp_path.name}"):
        check_given_networks(config)


def test_a_network_of_another_kind_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "bert", "hidden_size": 128}')
    with pytest.raises(UserError, match=r"encode\.clip: .*model_type is 'bert'"):
        check_given_networks(diffusion_config(encode={"clip": str(tmp_path)}))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"encode": {"clip": "CLIP"}}, "context_dim is 128, the states of encode.clip are 32 wide"),
        ({"encode": {"clip": "TEXT"}}, "has no image tower"),
        ({"encode": {"autoencoder": "VAE"}}, "train.model.out_channels is 4, the latents .* have 16"),
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
        "VAE": {"_class_name": "AutoencoderKL", "latent_channels": 16, "block_out_channels": [8]},
        "HALVES": {"_class_name": "AutoencoderKL", "latent_channels": 4, "block_out_channels": [8, 8]},
    }
    for name, config in described.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(json.dumps(config))
    encode = {field: str(tmp_path / str(name)) for field, name in changes.get("encode", {}).items()}
    data = {"layout": "shapes"} | changes.get("data", {})
    with pytest.raises(UserError, match=message):
        check_given_networks(diffusion_config(**{**changes, "encode": encode, "data": data}))


def test_a_given_network_fits_other_conditions(tmp_path: Path) -> None:
    """Without text the CLIP is what images are compared by; an image that is drawn from is among the channels."""
    for name, described in (
        ("clip", {"model_type": "clip", "text_config": {"hidden_size": 32}}),
        ("vae", {"_class_name": "AutoencoderKL", "latent_channels": 4, "block_out_channels": [8]}),
    ):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(json.dumps(described))
    model = {"context_dim": None, "in_channels": 9, "out_channels": 4}
    train = {"model": model, "image_condition": {"kind": "masked"}}
    config = diffusion_config(
        encode={"clip": str(tmp_path / "clip"), "autoencoder": str(tmp_path / "vae")},
        train=train,
        data={"layout": "shapes"},
        evaluate={"num_explained": 0},
    )
    given._check_clip_config(config)
    given._check_autoencoder_config(config)


def test_given_networks_are_loaded_completely_once(
    clip_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UNETFLOW_CACHE", str(tmp_path / "cache"))
    config = clip_config(clip_folder)
    loaded: list[Path] = []
    load = given._load_clip

    def counted(folder: Path) -> object:
        loaded.append(folder)
        return load(folder)

    monkeypatch.setattr(given, "_load_clip", counted)
    check_given_networks(config)
    check_given_networks(config)
    assert loaded == [clip_folder], "its files are those that passed"
    copy = tmp_path / "clip"
    shutil.copytree(clip_folder, copy)
    weights = load_file(copy / "model.safetensors")
    save_file({k: v for k, v in weights.items() if not k.startswith("vision")}, copy / "model.safetensors")
    for _ in range(2):
        with pytest.raises(WeightsError, match=r"encode\.clip: .*weights of the network are missing: vision_model"):
            check_given_networks(clip_config(copy))
    (copy / "model.safetensors").rename(copy / "pytorch_model.bin")
    with pytest.raises(WeightsError, match=r"encode\.clip: .*found .*pytorch_model\.bin.*Pickles .* are not read"):
        check_given_networks(clip_config(copy))


def clip_config(folder: Path) -> DiffusionConfig:
    """Build a configuration that names a CLIP of width 32."""
    train = {"model": {"context_dim": 32, "channels": (32, 64), "attention_levels": (False, True)}}
    return diffusion_config(encode={"clip": str(folder)}, train={**train, "global_batch_size": 12})


def test_a_copy_of_a_trained_network_has_its_digest() -> None:
    """So a training may start from the folders of the champion's own encoders."""
    files = {"config.json": "config.json", "model.safetensors": "m", "tokenizer.json": "t"}
    trained = finished("train_clip", TRAINED, "/a", **files, weights="w", checkpoint="c")
    adopted = finished("train_clip", TRAINED, "/b", **files | {"config.json": "reformatted"})
    assert network_digest(trained) == network_digest(adopted)
    other = finished("train_clip", TRAINED, "/b", **files | {"model.safetensors": "other"})
    assert network_digest(trained) != network_digest(other)


def test_networks_that_are_trained_here_need_no_check() -> None:
    check_given_networks(diffusion_config())
