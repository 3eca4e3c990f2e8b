"""DenoisingUNetSpec from and to the config.json of a ``UNet2DConditionModel`` of diffusers.

Needs no diffusers. Only what ``DenoisingUNet`` implements can be read; any other config is an error.
"""

from __future__ import annotations

from typing import Any

from pydantic import ValidationError

from data_pipelines.errors import WeightsError
from unet_models.specs.denoisers import DenoisingUNetSpec

CONFIG = "config.json"
CLASS = "UNet2DConditionModel"

NUMBERS = {
    "in_channels": ("in_channels", 4),
    "out_channels": ("out_channels", 4),
    "layers_per_block": ("num_res_blocks", 2),
    "attention_head_dim": ("num_heads", 8),  # the number of heads, whatever it is called
    "transformer_layers_per_block": ("num_transformer_blocks", 1),
    "cross_attention_dim": ("context_dim", 1280),
    "norm_num_groups": ("num_groups", 32),
}
"""Integers: key of the config to field of the spec and diffusers' default for a missing key."""

LISTS = {
    "block_out_channels": [320, 640, 1280, 1280],
    "down_block_types": ["CrossAttnDownBlock2D"] * 3 + ["DownBlock2D"],
    "up_block_types": ["UpBlock2D"] + ["CrossAttnUpBlock2D"] * 3,
}
"""Lists with one entry per level: key to diffusers' default for a missing key."""

CONDITIONING = {"additive": "default", "film": "scale_shift"}
"""``time_conditioning`` of the spec to ``resnet_time_scale_shift`` of the config."""

FIXED: dict[str, Any] = {
    "act_fn": "silu",
    "addition_embed_type": None,
    "addition_embed_type_num_heads": 64,
    "addition_time_embed_dim": None,
    "attention_type": "default",
    "center_input_sample": False,
    "class_embed_type": None,
    "class_embeddings_concat": False,
    "conv_in_kernel": 3,
    "conv_out_kernel": 3,
    "cross_attention_norm": None,
    "downsample_padding": 1,
    "dual_cross_attention": False,
    "encoder_hid_dim": None,
    "encoder_hid_dim_type": None,
    "flip_sin_to_cos": True,
    "freq_shift": 0,
    "mid_block_only_cross_attention": None,
    "mid_block_scale_factor": 1,
    "mid_block_type": "UNetMidBlock2DCrossAttn",
    "norm_eps": 1e-5,
    "num_attention_heads": None,
    "only_cross_attention": False,
    "projection_class_embeddings_input_dim": None,
    "resnet_out_scale_factor": 1.0,
    "resnet_skip_time_act": False,
    "reverse_transformer_layers_per_block": None,
    "time_cond_proj_dim": None,
    "time_embedding_act_fn": None,
    "time_embedding_dim": None,
    "time_embedding_type": "positional",
    "timestep_post_act": None,
    "upcast_attention": False,
    "use_linear_projection": False,
}
"""Keys for which ``DenoisingUNet`` supports one value alone, which is also diffusers' default for a missing key."""

SYNONYMS = {"act_fn": "swish", "mid_block_only_cross_attention": False}
"""Other spellings of the values of ``FIXED``."""


def denoiser_config(spec: DenoisingUNetSpec) -> dict[str, Any]:
    """Build the config of ``spec``, with every key of diffusers.

    Raises ValueError where ``context_dim`` is none: diffusers builds these transformer blocks with cross-attention
    alone (its ``AttnDownBlock2D`` is another layer, without feed-forward), so such a network has no counterpart.
    ``gradient_checkpointing`` is not part of a config: diffusers switches it on by a call.
    """
    if spec.context_dim is None:
        raise ValueError(
            "context_dim: none, but diffusers has no transformer blocks with self-attention alone; "
            "to export a network, train it with a context_dim"
        )
    levels = spec.attention_levels
    return FIXED | {
        "_class_name": CLASS,
        **{key: getattr(spec, field) for key, (field, _) in NUMBERS.items()},
        "block_out_channels": list(spec.channels),
        "down_block_types": [_block_type("Down", has_attention=attends) for attends in levels],
        "up_block_types": [_block_type("Up", has_attention=attends) for attends in reversed(levels)],
        "resnet_time_scale_shift": CONDITIONING[spec.time_conditioning],
        "num_class_embeds": spec.num_class_embeds,
        "dropout": spec.dropout,
        "sample_size": None,
    }


def denoiser_spec(config: dict[str, Any]) -> DenoisingUNetSpec:
    """Build the spec of a config, the inverse of ``denoiser_config``, for any config of diffusers.

    ``sample_size`` is ignored, since it does not change the network.

    Raises WeightsError for a key or value that is not implemented, with the key, the value got and what is supported.
    """
    config = {key: value for key, value in config.items() if not key.startswith("_") or key == "_class_name"}
    _check_keys(config)
    conditioning = config.get("resnet_time_scale_shift", "default")
    if conditioning not in CONDITIONING.values():
        raise _unsupported("resnet_time_scale_shift", conditioning, " or ".join(CONDITIONING.values()))
    fields = {
        **{field: _number(config, key) for key, (field, _) in NUMBERS.items()},
        "channels": config.get("block_out_channels", LISTS["block_out_channels"]),
        "attention_levels": _attention_levels(config),
        "time_conditioning": "film" if conditioning == CONDITIONING["film"] else "additive",
        "num_class_embeds": config.get("num_class_embeds"),
        "dropout": config.get("dropout", 0.0),
    }
    try:
        return DenoisingUNetSpec.model_validate(fields)
    except ValidationError as error:
        raise WeightsError(f"{CONFIG}: {error}") from None


def _check_keys(config: dict[str, Any]) -> None:
    """Check that all keys are known, and that those of ``FIXED`` have the supported value."""
    known = {"_class_name", "sample_size", "resnet_time_scale_shift", "num_class_embeds", "dropout"}
    for key in sorted(config.keys() - known - FIXED.keys() - NUMBERS.keys() - LISTS.keys()):
        raise _unsupported(key, config[key], "no such key")
    for key, supported in {"_class_name": CLASS, **FIXED}.items():
        got = _collapse(config.get(key, supported))
        if got != supported and (key not in SYNONYMS or got != SYNONYMS[key]):
            raise _unsupported(key, got, repr(supported))


def _number(config: dict[str, Any], key: str) -> int:
    got = _collapse(config.get(key, NUMBERS[key][1]))
    if not isinstance(got, int) or got < 1:
        raise _unsupported(key, got, "one whole number, the same on every level")
    return got


def _attention_levels(config: dict[str, Any]) -> tuple[bool, ...]:
    """Read the levels with attention from the block types, which must be the same in encoder and decoder."""
    down, up = (config.get(key, LISTS[key]) for key in ("down_block_types", "up_block_types"))
    for key, side, types in (("down_block_types", "Down", down), ("up_block_types", "Up", up)):
        supported = [_block_type(side, has_attention=has) for has in (False, True)]
        if not isinstance(types, list | tuple) or any(name not in supported for name in types):
            raise _unsupported(key, types, " and ".join(supported))
    levels = tuple(name == _block_type("Down", has_attention=True) for name in down)
    mirrored = [_block_type("Up", has_attention=attends) for attends in reversed(levels)]
    if list(up) != mirrored:
        raise _unsupported("up_block_types", up, f"the mirror image of down_block_types, {mirrored}")
    return levels


def _block_type(side: str, *, has_attention: bool) -> str:
    return f"{'CrossAttn' if has_attention else ''}{side}Block2D"


def _collapse(value: Any) -> Any:
    """Replace a list of equal entries, one per level, by its entry."""
    same = isinstance(value, list | tuple) and value and all(entry == value[0] for entry in value)
    return value[0] if same else value


def _unsupported(key: str, got: Any, supported: str) -> WeightsError:
    return WeightsError(f"{CONFIG}: {key} is {got!r}, which is not implemented; supported: {supported}")
