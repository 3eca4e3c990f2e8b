"""The noise predictor as a folder of diffusers, both ways.

    config.json                               what the network is made of, of class UNet2DConditionModel
    diffusion_pytorch_model.safetensors       its weights, under the names they have here

Needs no diffusers: the format is two files. Only what ``Denoiser`` implements can be read; anything else is refused.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from unet_models.networks.denoiser import Denoiser
from unet_models.specs.networks import DenoiserSpec

CONFIG = "config.json"
WEIGHTS = "diffusion_pytorch_model.safetensors"
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
"""Whole numbers: the key, the spec's field, and what diffusers takes where a config has no such key."""

LISTS = {
    "block_out_channels": [320, 640, 1280, 1280],
    "down_block_types": ["CrossAttnDownBlock2D"] * 3 + ["DownBlock2D"],
    "up_block_types": ["UpBlock2D"] + ["CrossAttnUpBlock2D"] * 3,
}
"""One entry per level, and again what an absent key stands for."""

CONDITIONING = {"additive": "default", "film": "scale_shift"}
"""The spec's ``time_conditioning`` as ``resnet_time_scale_shift``."""

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
"""Keys for which ``Denoiser`` has one value alone; it is also what an absent key stands for."""

SYNONYMS = {"act_fn": "swish", "mid_block_only_cross_attention": False}
"""Other spellings of the values above."""


def save_as_diffusers(denoiser: Denoiser, folder: Path, sample_size: int | None = None) -> None:
    """Write ``folder`` so that ``diffusers.UNet2DConditionModel.from_pretrained(folder)`` gives the same network.

    ``sample_size`` is the side of the latents that pipelines draw when not told otherwise, in latent pixels.
    Weights keep their precision. Raises ValueError for a spec that diffusers has no blocks for: see
    ``denoiser_config``.
    """
    config = denoiser_config(denoiser.spec) | {"sample_size": sample_size}
    folder.mkdir(parents=True, exist_ok=True)
    weights, description = folder / (WEIGHTS + ".partial"), folder / (CONFIG + ".partial")
    # Contiguous copies: channels-last weights are stored in the order everybody expects.
    save_file({k: v.contiguous() for k, v in denoiser.state_dict().items()}, weights, metadata={"format": "pt"})
    description.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
    weights.rename(folder / WEIGHTS)
    description.rename(folder / CONFIG)


def load_from_diffusers(folder: Path) -> Denoiser:
    """The network of a folder that diffusers (or ``save_as_diffusers``) wrote: float32, on the CPU, in evaluation mode.

    Raises ValueError where a file is missing or unreadable, weights come in shards or as a pickle, a value of the
    config is not implemented here, or names or shapes of weights are not those of the configured network.
    """
    spec = denoiser_spec(_read_config(folder / CONFIG))
    weights = _read_weights(folder)
    with torch.device("meta"):  # neither drawn at random nor held twice
        denoiser = Denoiser(spec)
    _check_weights(folder / WEIGHTS, weights, denoiser.state_dict())
    denoiser.to_empty(device="cpu").load_state_dict(weights)
    return denoiser.eval()


def denoiser_config(spec: DenoiserSpec) -> dict[str, Any]:
    """``spec`` as the config.json of a ``UNet2DConditionModel``, every key spelt out.

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
        "down_block_types": [_block_type("Down", attends) for attends in levels],
        "up_block_types": [_block_type("Up", attends) for attends in reversed(levels)],
        "resnet_time_scale_shift": CONDITIONING[spec.time_conditioning],
        "num_class_embeds": spec.num_class_embeds,
        "dropout": spec.dropout,
        "sample_size": None,
    }


def denoiser_spec(config: dict[str, Any]) -> DenoiserSpec:
    """The inverse of ``denoiser_config``, for any config of diffusers; ``sample_size`` says nothing of the network.

    Raises ValueError for a key or value that is not implemented, with the key, the value got and what is supported.
    """
    config = {key: value for key, value in config.items() if not key.startswith("_") or key == "_class_name"}
    known = {"_class_name", "sample_size", "resnet_time_scale_shift", "num_class_embeds", "dropout"}
    for key in sorted(config.keys() - known - FIXED.keys() - NUMBERS.keys() - LISTS.keys()):
        raise _unsupported(key, config[key], "no such key")
    for key, supported in {"_class_name": CLASS, **FIXED}.items():
        got = _one(config.get(key, supported))
        if got != supported and (key not in SYNONYMS or got != SYNONYMS[key]):
            raise _unsupported(key, got, repr(supported))
    conditioning = config.get("resnet_time_scale_shift", "default")
    if conditioning not in CONDITIONING.values():
        raise _unsupported("resnet_time_scale_shift", conditioning, " or ".join(CONDITIONING.values()))
    numbers: dict[str, Any] = {field: _number(config, key) for key, (field, _) in NUMBERS.items()}
    return DenoiserSpec(
        **numbers,
        channels=config.get("block_out_channels", LISTS["block_out_channels"]),
        attention_levels=_attention_levels(config),
        time_conditioning="film" if conditioning == CONDITIONING["film"] else "additive",
        num_class_embeds=config.get("num_class_embeds"),
        dropout=config.get("dropout", 0.0),
    )


def _number(config: dict[str, Any], key: str) -> int:
    got = _one(config.get(key, NUMBERS[key][1]))
    if not isinstance(got, int) or got < 1:
        raise _unsupported(key, got, "one whole number, the same on every level")
    return got


def _attention_levels(config: dict[str, Any]) -> tuple[bool, ...]:
    down, up = (config.get(key, LISTS[key]) for key in ("down_block_types", "up_block_types"))
    for key, side, types in (("down_block_types", "Down", down), ("up_block_types", "Up", up)):
        supported = [_block_type(side, False), _block_type(side, True)]
        if not isinstance(types, list | tuple) or any(name not in supported for name in types):
            raise _unsupported(key, types, " and ".join(supported))
    levels = tuple(name == _block_type("Down", True) for name in down)
    mirrored = [_block_type("Up", attends) for attends in reversed(levels)]
    if list(up) != mirrored:
        raise _unsupported("up_block_types", up, f"the mirror image of down_block_types, {mirrored}")
    return levels


def _block_type(side: str, attends: bool) -> str:
    return f"{'CrossAttn' if attends else ''}{side}Block2D"


def _one(value: Any) -> Any:
    """A list of equal entries, one per level, as the one it stands for."""
    same = isinstance(value, list | tuple) and value and all(entry == value[0] for entry in value)
    return value[0] if same else value


def _unsupported(key: str, got: Any, supported: str) -> ValueError:
    return ValueError(f"{CONFIG}: {key} is {got!r}, which is not implemented; supported: {supported}")


def _read_config(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise ValueError(f"{path}: no such file; give the folder of the network itself (of a pipeline: its unet/)")
    try:
        config = json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(f"{path}: not JSON: {error}") from None
    if not isinstance(config, dict):
        raise ValueError(f"{path}: must be a JSON object, got {type(config).__name__}")
    return config


def _read_weights(folder: Path) -> dict[str, Tensor]:
    path = folder / WEIGHTS
    if not path.is_file():
        found = sorted(p.name for p in folder.glob("diffusion_pytorch_model*"))
        raise ValueError(
            f"{folder}: needs its weights in one file, {WEIGHTS} (no shards, no .bin, no variant), found "
            f"{found or 'none'}; write it by save_pretrained(folder, max_shard_size='100GB') of diffusers"
        )
    try:
        return load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path}: not a complete safetensors file: {error}") from None


def _check_weights(path: Path, got: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    for problem, names in (("unknown", got.keys() - expected.keys()), ("missing", expected.keys() - got.keys())):
        if names:
            raise ValueError(f"{path}: {len(names)} {problem} weights for its {CONFIG}, such as {sorted(names)[:3]}")
    for name, tensor in expected.items():
        if got[name].shape != tensor.shape:
            raise ValueError(f"{path}: {name} must be {tuple(tensor.shape)}, got {tuple(got[name].shape)}")
