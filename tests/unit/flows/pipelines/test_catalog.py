"""Every shipped configuration parses and shows what it was measured with; a pipeline elsewhere can join the catalog."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from data_pipelines.errors import ConfigError
from flows.pipelines.catalog import PIPELINES, load_config, pipeline_of
from flows.pipelines.segmentation.config import SegmentationConfig
from flows.stages.pipeline import Pipeline
from tests.support.counts import documented, num_parameters
from tests.support.project import CHECKOUT
from unet_models.networks.build import build_denoiser, build_network
from unet_models.networks.presets import stable_diffusion_1x
from unet_models.specs.denoisers import DenoiserSpec, DiTSpec, UViTSpec
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
    assert load_config(CONFIGS["stable_diffusion_1x"]).train.model == stable_diffusion_1x()


def count(spec: DenoiserSpec) -> int:
    """Count the parameters of a denoiser, without building its weights."""
    with torch.device("meta"):
        return num_parameters(build_denoiser(spec))


@pytest.mark.parametrize(
    ("backbone", "published", "configured"),
    [
        ("unet", stable_diffusion_1x(), ["demo_diffusion", "emoji"]),
        ("uvit", UViTSpec(context_dim=768), ["demo_diffusion"]),
        ("dit", DiTSpec(context_dim=None, num_class_embeds=1001, out_channels=8), ["demo_diffusion"]),
    ],
)
def test_the_page_has_the_parameters_of_the_backbones(
    backbone: str, published: DenoiserSpec, configured: list[str]
) -> None:
    """Of published size and of the size that the commands of docs/networks.md train."""
    page = (CHECKOUT / "docs" / "networks.md").read_text()
    overrides = sorted(set(re.findall(rf'--set "(train.model={{backbone: {backbone},.*}})"', page)))
    specs = [load_config(CONFIGS[name], overrides).train.model for name in configured]
    assert {spec.backbone for spec in specs} == {backbone}
    assert {count(published), *map(count, specs)} == documented(backbone, "Diffusion")


def test_the_page_has_the_parameters_of_the_variants() -> None:
    """Channels, classes and axes are those of the generated scenes and phantoms."""
    scenes = load_config(CONFIGS["scenes"]).train.model
    exits = load_config(CONFIGS["demo_segmentation"], ["train.model.deep_supervision=2"]).train.model
    alone = scenes.model_copy(update={"fusion": None})
    fused = {num_parameters(build_network(spec, 1, 2, ndim=2)) for spec in (scenes, alone)}
    assert documented("train.model.fusion") == fused
    assert documented("evaluate.exit_confidence") == {num_parameters(build_network(exits, 1, 4, ndim=3))}


def test_a_pipeline_defined_elsewhere_joins_the_catalog(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class VideoConfig(SegmentationConfig):
        """Another pipeline's configuration."""

        pipeline: str = "video"  # type: ignore[assignment]

    path = tmp_path / "a.yaml"
    path.write_text("pipeline: video")
    with pytest.raises(
        ConfigError, match="pipeline: unknown pipeline 'video'; choose segmentation or diffusion or restoration"
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
