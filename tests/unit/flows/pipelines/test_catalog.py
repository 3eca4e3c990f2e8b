"""Every shipped configuration parses and shows what it was measured with; a pipeline elsewhere can join the catalog."""

from __future__ import annotations

from pathlib import Path

import pytest

from data_pipelines.errors import ConfigError
from flows.pipelines.catalog import PIPELINES, load_config, pipeline_of
from flows.pipelines.segmentation.config import SegmentationConfig
from flows.stages.pipeline import Pipeline
from tests.support.project import CHECKOUT
from unet_models.specs.presets import PRESETS

FOLDER = CHECKOUT / "flows" / "configs"
CONFIGS = {str(path.relative_to(FOLDER).with_suffix("")): path for path in sorted(FOLDER.rglob("*.yaml"))}


def test_there_are_configs() -> None:
    assert CONFIGS.keys() >= {
        *("hippocampus", "hippocampus_gpu", "demo_segmentation"),
        *("emoji", "emoji_gpu", "demo_diffusion", "stable_diffusion_1x"),
    }


@pytest.mark.parametrize("name", CONFIGS)
def test_shipped_config_parses(name: str) -> None:
    config = load_config(CONFIGS[name])
    assert type(config) is PIPELINES[config.pipeline].config
    assert pipeline_of(config) is PIPELINES[config.pipeline]


@pytest.mark.parametrize("name", CONFIGS)
def test_shipped_config_opens_with_its_command(name: str) -> None:
    first_lines = CONFIGS[name].read_text().splitlines()[:2]
    command = next(line for line in first_lines if line.startswith("# unetflow "))
    assert command.startswith("# unetflow demo") or f"run flows/configs/{name}.yaml" in command


def test_every_member_of_the_family_has_a_config() -> None:
    members = {name.removeprefix("family/") for name in CONFIGS if name.startswith("family/")}
    assert {load_config(CONFIGS[f"family/{name}"]).train.model.preset for name in members} == members
    variants = {"fcn_8s": ("fcn_16s", "fcn_32s"), "mednext_s": ("mednext_b", "mednext_m", "mednext_l")}
    assert set(PRESETS) == members.union(*variants.values())
    for name, others in variants.items():
        assert all(other in CONFIGS[f"family/{name}"].read_text() for other in others)


def test_stable_diffusion_config_is_the_preset() -> None:
    from unet_models.networks.presets import stable_diffusion_1x

    assert load_config(CONFIGS["stable_diffusion_1x"]).train.model == stable_diffusion_1x()


def test_a_pipeline_defined_elsewhere_joins_the_catalog(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class VideoConfig(SegmentationConfig):
        """Another pipeline's configuration."""

        pipeline: str = "video"  # type: ignore[assignment]

    path = tmp_path / "a.yaml"
    path.write_text("pipeline: video")
    with pytest.raises(
        ConfigError, match="pipeline: there is no 'video'; choose segmentation or diffusion or restoration"
    ):
        load_config(path)
    monkeypatch.setitem(PIPELINES, "video", Pipeline("video", VideoConfig, steps=()))
    config = load_config(path)
    assert type(config) is VideoConfig
    assert pipeline_of(config).steps == ()


def test_steps_are_in_data_order_and_end_with_registration() -> None:
    assert PIPELINES["segmentation"].step_names == (*("shard", "cascade", "search", "train", "evaluate", "register"),)
    assert PIPELINES["restoration"].step_names == ("shard", "train", "evaluate", "register")
    assert PIPELINES["diffusion"].step_names == (
        *("shard", "train_clip", "train_autoencoder", "encode", "train", "evaluate", "register"),
    )
    assert all(step.about.endswith(".") for pipeline in PIPELINES.values() for step in pipeline.steps)
