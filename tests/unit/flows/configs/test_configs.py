"""Every shipped configuration parses, and mistakes in one are named by field."""

from __future__ import annotations

from pathlib import Path

import pytest

from data_pipelines.errors import UserError
from flows.pipelines.catalog import load_config

CONFIGS = sorted((Path(__file__).resolve().parents[2] / "flows" / "configs").glob("*.yaml"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_shipped_config_parses(path: Path) -> None:
    assert load_config(path).pipeline in ("segmentation", "diffusion")


def test_there_are_configs() -> None:
    assert {path.name for path in CONFIGS} >= {
        *("hippocampus.yaml", "hippocampus_gpu.yaml", "demo_segmentation.yaml"),
        *("emoji.yaml", "emoji_gpu.yaml", "demo_diffusion.yaml", "stable_diffusion_1x.yaml"),
    }


def test_overrides_win_over_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("train: {num_steps: 5}")
    config = load_config(path, ["train.num_steps=7", "evaluate.tta=false", "data.root=/x"])
    assert (config.train.num_steps, config.evaluate.tta, config.data.root) == (7, False, "/x")


@pytest.mark.parametrize(
    ("override", "named"),
    [
        ("train.num_stepz=7", "train.num_stepz: there is no such field"),
        ("train.num_steps=seven", "train.num_steps"),
        ("train.patch_size=[8, 8]", "one number per spatial axis"),
        ("train", "write it as a.b=value"),
        ("compute.num_workers=64", "every worker needs at least one sample"),
        ("data.preprocess.normalise=window", "go together"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, override: str, named: str) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("{}")
    with pytest.raises(UserError, match=named.replace("(", r"\(")):
        load_config(path, [override])


@pytest.mark.parametrize(
    ("override", "named"),
    [
        ("train.model.context_dim=64", "train.model.context_dim (64) must be train_clip.width (128)"),
        ("train_autoencoder.latent_channels=8", "must be train_autoencoder.latent_channels (8)"),
        ("train_clip.patch_pixels=5", "data.resolution (32) must be a multiple of train_clip.patch_pixels (5)"),
        ("data.resolution=50", "data.resolution (50) must be a multiple of 8: train_autoencoder shrinks images by 4"),
        ("data.crop=buckets", "resolution (32) must be a multiple of bucket_multiple (64)"),
        ("data={resolution: 64, crop: buckets}", "must be a multiple of bucket_multiple (64), twice it or more"),
        (
            "data={layout: shapes, resolution: 32, crop: buckets, bucket_multiple: 2}",
            "data.bucket_multiple (2) must be a multiple of 8",
        ),
        ("compute.num_workers=3", "train_clip.global_batch_size (128) must be a multiple of compute.num_workers (3)"),
        ("train.noise.zero_terminal_snr=1", ""),
        ("pipeline=video", "pipeline: there is no 'video'; choose segmentation or diffusion"),
    ],
)
def test_networks_of_a_diffusion_config_must_fit_together(override: str, named: str) -> None:
    demo = next(path for path in CONFIGS if path.name == "demo_diffusion.yaml")
    if not named:
        assert load_config(demo, [override])
        return
    with pytest.raises(UserError) as caught:
        load_config(demo, [override])
    assert named in str(caught.value)


def test_stable_diffusion_config_is_the_preset() -> None:
    from unet_models.networks.presets import stable_diffusion_1x

    config = load_config(next(path for path in CONFIGS if path.name == "stable_diffusion_1x.yaml"))
    assert config.train.model == stable_diffusion_1x()
