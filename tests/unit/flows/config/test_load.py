"""A YAML file with overrides: overrides win, and mistakes are named by file, field and rule."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from data_pipelines.errors import ConfigError
from flows.config.load import read_config
from flows.pipelines.diffusion.config import DiffusionConfig
from flows.pipelines.segmentation.config import SegmentationConfig
from tests.support.project import CHECKOUT

MODELS = {"segmentation": SegmentationConfig, "diffusion": DiffusionConfig}
DEMO = CHECKOUT / "flows" / "configs" / "demo_diffusion.yaml"


def written(folder: Path, text: str) -> Path:
    path = folder / "a.yaml"
    path.write_text(text)
    return path


def test_overrides_win_over_the_file(tmp_path: Path) -> None:
    path = written(tmp_path, "train: {num_steps: 5}")
    config = read_config(path, ["train.num_steps=7", "evaluate.tta=false", "data.root=/x"], MODELS)
    assert isinstance(config, SegmentationConfig)
    assert (config.train.num_steps, config.evaluate.tta, config.data.root) == (7, False, "/x")


def test_the_field_pipeline_chooses_the_configuration(tmp_path: Path) -> None:
    path = written(tmp_path, "pipeline: segmentation")
    assert type(read_config(path, [], MODELS)) is SegmentationConfig
    assert type(read_config(DEMO, [], MODELS)) is DiffusionConfig
    assert type(read_config(written(tmp_path, ""), [], MODELS)) is SegmentationConfig, "the default"


@pytest.mark.parametrize(
    ("override", "named"),
    [
        ("train.num_stepz=7", "train.num_stepz: unknown field; `unetflow config --reference` lists all"),
        ("train.num_steps=seven", "train.num_steps"),
        ("train.num_steps=seven", "(got 'seven')"),
        ("train.patch_size=[8, 8]", "one number per spatial axis"),
        ("train", "write it as a.b=value"),
        ("=7", "write it as a.b=value"),
        ("pipeline.x=7", "pipeline is a value, not a group of fields"),
        ("train={", "the value is not valid YAML"),
        ("compute.num_workers=64", "every worker needs at least one sample"),
        ("data.preprocess.normalise=window", "go together"),
        ("registry.min_metrics={sparkle: 1}", "registry.min_metrics: unknown metric sparkle"),
        ("registry.max_metrics={learning_rate: 1}", "learning_rate has no direction"),
        ("registry.compare_metric=sparkle", "registry.compare_metric: unknown metric sparkle"),
        ("registry.compare_metric=samples_per_second", "samples_per_second has no direction"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, override: str, named: str) -> None:
    path = written(tmp_path, "pipeline: segmentation")
    with pytest.raises(ConfigError, match=re.escape(named)) as caught:
        read_config(path, [override], MODELS)
    assert str(path) in str(caught.value) or override in str(caught.value)


def test_what_is_merged_may_be_overridden(tmp_path: Path) -> None:
    merged = "pipeline: diffusion\ntrain: {optimizer: &o {learning_rate: 0.1, name: adamw}}\n"
    merged += "train_clip: {optimizer: &c {<<: *o, learning_rate: 0.2}}\ntrain_autoencoder: {optimizer: {<<: *c}}"
    config = read_config(written(tmp_path, merged), [], MODELS)
    assert isinstance(config, DiffusionConfig)
    assert config.train_autoencoder.optimizer.learning_rate == 0.2


def test_an_anchor_that_two_groups_share_is_overridden_in_one(tmp_path: Path) -> None:
    text = "pipeline: diffusion\ntrain_clip: {optimizer: &o {learning_rate: 0.1}}\ntrain_autoencoder: {optimizer: *o}"
    path = written(tmp_path, text)
    config = read_config(path, ["train_autoencoder.optimizer.learning_rate=0.5"], MODELS)
    assert isinstance(config, DiffusionConfig)
    assert config.train_autoencoder.optimizer.learning_rate == 0.5
    assert config.train_clip.optimizer.learning_rate == 0.1


@pytest.mark.parametrize("override", ["registry.name=#x", "registry.name= # x"])
def test_a_value_that_yaml_takes_for_a_comment_is_refused(tmp_path: Path, override: str) -> None:
    with pytest.raises(ConfigError, match="the value is a comment in YAML"):
        read_config(written(tmp_path, ""), [override], MODELS)


def test_all_wrong_fields_are_named_at_once(tmp_path: Path) -> None:
    path = written(tmp_path, "train: {num_steps: 0, num_stepz: 1}\nregistry: {compare_metric: sparkle}")
    with pytest.raises(ConfigError) as caught:
        read_config(path, [], MODELS)
    message = str(caught.value)
    assert "3 invalid field(s)" in message
    assert all(name in message for name in ("train.num_steps:", "train.num_stepz:", "registry.compare_metric:"))


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("a: [1", "is not valid YAML in UTF-8"),
        ("data: {classes: {tumour: 1, edema: 2, tumour: 3}}", "duplicate key tumour"),
        ("train: {num_steps: 9}\ntrain: {seed: 1}", "duplicate key train"),
        ("[1, 2]", "must hold fields such as `data:` and `train:`, found a list"),
        ("pipeline: video", "pipeline: unknown pipeline 'video'; choose segmentation or diffusion"),
        (
            "pipeline: [diffusion]",
            "pipeline: unknown pipeline ['diffusion']; choose segmentation or diffusion",
        ),
        ("pipeline:", "pipeline: unknown pipeline None; choose segmentation or diffusion"),
    ],
)
def test_files_that_hold_no_configuration(tmp_path: Path, text: str, named: str) -> None:
    path = written(tmp_path, text)
    with pytest.raises(ConfigError, match=re.escape(named)) as caught:
        read_config(path, [], MODELS)
    assert str(caught.value).startswith(str(path))


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.yaml: cannot be read"):
        read_config(tmp_path / "none.yaml", [], MODELS)
    (tmp_path / "a.yaml").write_bytes(b"a: \xff")
    with pytest.raises(ConfigError, match=r"a\.yaml: is not valid YAML in UTF-8"):
        read_config(tmp_path / "a.yaml", [], MODELS)


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
        (
            "train_clip.validate_cases=1",
            "train_clip.validate_cases (1) must be at least compute.num_workers (2), or 0",
        ),
        ("evaluate.num_inference_steps=2000", "must be at most train.noise.num_timesteps"),
        (
            "train.model.num_class_embeds=3",
            "num_class_embeds (3): the data have no classes; set data.class_from",
        ),
        (
            "train.image_condition.kind=masked",
            "in_channels (4) must be 9 (4 noisy latents, 1 mask, 4 of the image)",
        ),
    ],
)
def test_networks_of_a_diffusion_config_must_fit_together(override: str, named: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read_config(DEMO, [override], MODELS)
    assert named in str(caught.value)


@pytest.mark.parametrize(
    ("overrides", "named"),
    [
        (["train.model={backbone: dit, context_dim: 128, width: 2}"], "train.model.width: Input should be greater"),
        (["train.model={backbone: dit, channels: [8]}"], "train.model.channels: unknown field"),
        (["train.model={backbone: uvit, num_layers: 4}"], "train.model: num_layers: must be odd"),
        (["train.model={backbone: vit}"], "train.model: backbone: unknown denoiser; choose unet, uvit or dit"),
        (["train.model={backbone: uvit, context_dim: 64}"], "train.model.context_dim (64) must be train_clip.width"),
    ],
)
def test_each_backbone_has_its_own_fields(overrides: list[str], named: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(named)):
        read_config(DEMO, overrides, MODELS)


def test_maps_of_a_prompt_need_text() -> None:
    overrides = ["train.model.context_dim=null", "evaluate.num_explained=2"]
    with pytest.raises(ConfigError, match=r"evaluate.num_explained \(2\): train.model.context_dim is null"):
        read_config(DEMO, overrides, MODELS)
    assert read_config(DEMO, overrides[:1], MODELS).pipeline == "diffusion"


def test_a_switch_may_be_written_as_a_number() -> None:
    config = read_config(DEMO, ["train.noise.zero_terminal_snr=1", "train.min_snr_gamma=null"], MODELS)
    assert isinstance(config, DiffusionConfig)
    assert config.train.noise.zero_terminal_snr is True


def test_storage_is_an_absolute_uri(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = written(tmp_path, "{}")
    assert read_config(path, ["storage=runs"], MODELS).storage_uri == str(tmp_path / "runs")
    assert read_config(path, ["storage=s3://bucket/runs"], MODELS).storage_uri == "s3://bucket/runs"
    monkeypatch.setenv("UNETFLOW_STORAGE", "/shared")
    assert read_config(path, [], MODELS).storage_uri == "/shared"
    monkeypatch.delenv("UNETFLOW_STORAGE")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert read_config(path, [], MODELS).storage_uri == str(tmp_path / ".local/state/unetflow")
