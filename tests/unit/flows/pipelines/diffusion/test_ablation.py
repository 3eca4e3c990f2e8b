from __future__ import annotations

import pytest

from data_pipelines.errors import ConfigError
from flows.pipelines.diffusion.ablation import skip_variants
from flows.pipelines.diffusion.config import DiffusionConfig
from unet_models.formats.denoiser_folder import diffusers_obstacle


def config(**model: object) -> DiffusionConfig:
    return DiffusionConfig.model_validate({"train": {"model": model}})


def test_variants_differ_in_their_skip_connections_alone() -> None:
    variants = skip_variants(config(channels=[32, 64], attention_levels=[False, True]))
    assert {name: each.train.model.skips for name, each in variants.items()} == {  # type: ignore[union-attr]
        "all": ("concat", "concat"),
        "gated": ("gated", "gated"),
        "none": ("none", "none"),
        "level 1 alone": ("concat", "none"),
        "level 2 alone": ("none", "concat"),
    }
    obstacles = {name: diffusers_obstacle(each.train.model) for name, each in variants.items()}
    assert [name for name, obstacle in obstacles.items() if not obstacle] == ["all"], "diffusers has these alone"


def test_a_transformer_has_no_levels() -> None:
    with pytest.raises(ConfigError, match="backbone dit has no levels"):
        skip_variants(config(backbone="dit"))
