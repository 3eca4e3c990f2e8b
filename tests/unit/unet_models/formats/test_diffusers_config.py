"""Configs of diffusers: published and default ones are understood, and what is not implemented is named."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel

from data_pipelines.errors import WeightsError
from tests.support.denoisers import SMALL, shapes
from unet_models.formats.diffusers_config import denoiser_config, denoiser_spec
from unet_models.networks import presets
from unet_models.networks.denoisers.unet import DenoisingUNet
from unet_models.specs.denoisers import DenoisingUNetSpec


def test_published_config_is_understood() -> None:
    """The config.json of Stable Diffusion 1.5, written by diffusers 0.6."""
    config = {
        "_class_name": "UNet2DConditionModel",
        "_diffusers_version": "0.6.0",
        "act_fn": "silu",
        "attention_head_dim": 8,
        "block_out_channels": [320, 640, 1280, 1280],
        "center_input_sample": False,
        "cross_attention_dim": 768,
        "down_block_types": ["CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"],
        "downsample_padding": 1,
        "flip_sin_to_cos": True,
        "freq_shift": 0,
        "in_channels": 4,
        "layers_per_block": 2,
        "mid_block_scale_factor": 1,
        "norm_eps": 1e-05,
        "norm_num_groups": 32,
        "out_channels": 4,
        "sample_size": 64,
        "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"],
    }
    assert denoiser_spec(config) == presets.stable_diffusion_1x()


def test_lists_of_equal_entries_are_one_value() -> None:
    config = denoiser_config(SMALL) | {
        "attention_head_dim": [2, 2],
        "layers_per_block": [1, 1],
        "cross_attention_dim": [12, 12],
        "only_cross_attention": [False, False],
        "act_fn": "swish",
        "mid_block_only_cross_attention": False,
    }
    assert denoiser_spec(config) == SMALL


def test_every_key_of_diffusers_is_known() -> None:
    theirs = UNet2DConditionModel.from_config(denoiser_config(SMALL))
    keys = {key for key in theirs.config if not key.startswith("_")}
    assert keys == {key for key in denoiser_config(SMALL) if not key.startswith("_")}
    assert denoiser_spec(dict(theirs.config) | {"_class_name": "UNet2DConditionModel"}) == SMALL


def test_absent_keys_mean_what_they_mean_to_diffusers() -> None:
    with torch.device("meta"):
        theirs = UNet2DConditionModel()
    assert shapes_of(denoiser_spec({"_class_name": "UNet2DConditionModel"})) == shapes(theirs)
    assert denoiser_spec({}) == denoiser_spec(dict(theirs.config))


def shapes_of(spec: DenoisingUNetSpec) -> dict[str, torch.Size]:
    with torch.device("meta"):
        return shapes(DenoisingUNet(spec))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"_class_name": "UNet2DModel"}, "_class_name is 'UNet2DModel'.*supported: 'UNet2DConditionModel'"),
        ({"act_fn": "gelu"}, "act_fn is 'gelu', which is not implemented; supported: 'silu'"),
        ({"use_linear_projection": True}, "use_linear_projection is True.*supported: False"),
        ({"attention_head_dim": [1, 2]}, r"attention_head_dim is \[1, 2\].*one whole number, the same on every level"),
        ({"cross_attention_dim": None}, "cross_attention_dim is None.*one whole number"),
        ({"norm_num_groups": None}, "norm_num_groups is None"),
        ({"mid_block_type": None}, "mid_block_type is None.*UNetMidBlock2DCrossAttn"),
        ({"mid_block_type": "UNetMidBlock2D"}, "mid_block_type is 'UNetMidBlock2D'"),
        ({"down_block_types": ["AttnDownBlock2D", "DownBlock2D"]}, "down_block_types.*DownBlock2D and CrossAttn"),
        ({"up_block_types": ["CrossAttnUpBlock2D", "UpBlock2D"]}, "up_block_types.*mirror image of down_block_types"),
        ({"up_block_types": "UpBlock2D"}, "up_block_types is 'UpBlock2D'"),
        ({"resnet_time_scale_shift": "spatial"}, "resnet_time_scale_shift is 'spatial'.*default or scale_shift"),
        ({"addition_embed_type": "text_time"}, "addition_embed_type is 'text_time'.*supported: None"),
        ({"class_embed_type": "timestep"}, "class_embed_type is 'timestep'.*supported: None"),
        ({"norm_eps": 1e-6}, "norm_eps is 1e-06.*supported: 1e-05"),
        ({"a_later_invention": 1}, "a_later_invention is 1.*no such key"),
    ],
)
def test_configs_that_are_not_implemented(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(WeightsError, match=message):
        denoiser_spec(denoiser_config(SMALL) | changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"norm_num_groups": 3}, "channels: each must be divisible by num_groups"),
        ({"num_class_embeds": "many"}, "num_class_embeds"),
    ],
)
def test_values_that_no_network_can_have(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(WeightsError, match=rf"(?s)config\.json: .*{message}"):
        denoiser_spec(denoiser_config(SMALL) | changes)
