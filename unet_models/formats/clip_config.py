"""Configuration of a CLIP folder, read through the library's own classes: what a file leaves out has their defaults."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from data_pipelines.errors import WeightsError
from unet_models.networks.tokenizer import load_tokenizer

CONFIG = "config.json"
WHOLE, TEXT_ALONE = "clip", "clip_text_model"
"""``model_type`` of a folder of both encoders, and of the text encoder alone."""
ANCIENT_END = 2
"""``eos_token_id`` of configs written before transformers 4.31, which stands for the largest id of a caption."""


def read_config(folder: Path) -> dict[str, Any]:
    """Read the folder's config.json. Raises WeightsError where there is none, or no JSON object in it."""
    try:
        return dict(json.loads((folder / CONFIG).read_text()))
    except (OSError, ValueError, TypeError) as error:
        raise WeightsError(f"{folder / CONFIG}: cannot be read ({error}); name the folder that holds it") from None


def read_clip_config(folder: Path) -> Any:
    """Read a ``CLIPConfig``, or the ``CLIPTextConfig`` of a text encoder. Raises WeightsError for any other network."""
    from transformers import CLIPConfig, CLIPTextConfig

    values = read_config(folder)
    kind = values.get("model_type")
    if kind not in (WHOLE, TEXT_ALONE):
        raise WeightsError(f"{folder / CONFIG}: model_type is {kind!r}; give a folder of `{WHOLE}` or `{TEXT_ALONE}`")
    try:
        return (CLIPConfig if kind == WHOLE else CLIPTextConfig).from_dict(values)
    except Exception as error:  # transformers raises anything on values that it does not take
        reason = " ".join(str(error).split())
        raise WeightsError(f"{folder / CONFIG}: is not a CLIP's ({reason:.200}); copy the folder again") from None


def has_images(config: Any) -> bool:
    """Tell whether a config of ``read_clip_config`` is that of both encoders."""
    return config.model_type == WHOLE


def text_config(config: Any) -> Any:
    """Return the text encoder's part of a config of ``read_clip_config``."""
    return config.text_config if has_images(config) else config


def tokenizer_folder(folder: Path) -> Path:
    """Find the tokenizer of the CLIP in ``folder``. Raises WeightsError where there is none."""
    for candidate in (folder, folder / "tokenizer", folder.parent / "tokenizer"):
        if (candidate / "vocab.json").is_file() or (candidate / "tokenizer.json").is_file():
            return candidate
    raise WeightsError(f"{folder}: no tokenizer (vocab.json and merges.txt, or tokenizer.json) here or in tokenizer/")


def load_clip_tokenizer(folder: Path, config: Any) -> Any:
    """Load the tokenizer of the CLIP in ``folder`` with the config of ``read_clip_config``.

    Captions are cut to the positions that the network has, where the tokenizer itself allows more or says nothing.
    Raises WeightsError where there is none, or it is that of another network.
    """
    found = tokenizer_folder(folder)
    try:
        tokenizer = load_tokenizer(found)
    except Exception as error:  # tokenizers raises bare Exceptions
        reason = " ".join(str(error).split())
        raise WeightsError(f"{found}: the tokenizer cannot be read ({reason:.200}); copy the folder again") from None
    text = text_config(config)
    _check_ids(found, tokenizer, text.vocab_size)
    if has_images(config):
        _check_end(found, tokenizer, text.eos_token_id)
    tokenizer.model_max_length = min(tokenizer.model_max_length, text.max_position_embeddings)
    return tokenizer


def _check_ids(folder: Path, tokenizer: Any, vocab_size: int) -> None:
    """Raise WeightsError where the network lacks an embedding of a token."""
    largest = max(tokenizer.get_vocab().values(), default=-1)
    if largest >= vocab_size:
        raise WeightsError(
            f"{folder}: the tokenizer has ids up to {largest}, the text encoder {vocab_size} embeddings; give the "
            "tokenizer of this network"
        )


def _check_end(folder: Path, tokenizer: Any, end: int) -> None:
    """Raise WeightsError where the network looks for another end of a caption: its text vectors would be others."""
    if end not in (ANCIENT_END, tokenizer.eos_token_id):
        raise WeightsError(
            f"{folder}: the tokenizer ends captions with id {tokenizer.eos_token_id}, the text encoder's config says "
            f"{end}; give the tokenizer of this network, or correct eos_token_id in {CONFIG}"
        )
