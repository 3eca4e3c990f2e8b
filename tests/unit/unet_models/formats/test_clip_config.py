"""CLIP folders as others write them: defaults left out, no maximum length, a tokenizer of another network."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from data_pipelines.errors import WeightsError
from tests.support.encoders import write_clip
from unet_models.formats.clip_config import CONFIG, read_clip_config, text_config
from unet_models.formats.clip_folder import WEIGHTS, Clip
from unet_models.networks.tokenizer import count_tokens, tokenize


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_clip(tmp_path / "clip", 16)


def edit(path: Path, **changes: Any) -> None:
    """Change keys of a JSON file; None removes them."""
    values = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: value for key, value in values.items() if value is not None}))


def test_what_a_config_leaves_out_has_the_defaults_of_its_class(tmp_path: Path) -> None:
    (tmp_path / CONFIG).write_text(json.dumps({"model_type": "clip", "text_config": {"num_hidden_layers": 1}}))
    assert text_config(read_clip_config(tmp_path)).hidden_size == 512
    (tmp_path / CONFIG).write_text(json.dumps({"model_type": "clip_text_model"}))
    assert text_config(read_clip_config(tmp_path)).hidden_size == 512
    (tmp_path / CONFIG).write_text(json.dumps({"model_type": "clip_text_model", "hidden_size": "wide"}))
    with pytest.raises(WeightsError, match="is not a CLIP's"):
        read_clip_config(tmp_path)


@pytest.mark.parametrize("length", [None, 10**30, 77])
def test_captions_are_cut_to_the_positions_of_the_network(folder: Path, length: int | None) -> None:
    edit(folder / "tokenizer_config.json", model_max_length=length)
    clip = Clip(folder)
    assert tokenize(clip.tokenizer, ["a picture " * 50]).shape == (1, 16)
    assert clip.text_states(["short", "a picture " * 50]).shape == (2, 16, 32)
    assert [count > clip.tokenizer.model_max_length for count in count_tokens(clip.tokenizer, ["a", "b " * 50])] == [
        False,
        True,
    ]


def test_a_tokenizer_that_cuts_earlier_still_does(folder: Path) -> None:
    edit(folder / "tokenizer_config.json", model_max_length=9)
    assert Clip(folder).text_states(["a picture " * 50]).shape == (1, 9, 32)


def test_a_tokenizer_of_another_network_is_refused(folder: Path) -> None:
    with pytest.raises(WeightsError, match=r"ids up to \d+, the text encoder 100 embeddings"):
        resize(folder, 100)
    config = json.loads((folder / CONFIG).read_text())
    edit(folder / CONFIG, text_config=config["text_config"] | {"eos_token_id": 7, "vocab_size": config_size(folder)})
    with pytest.raises(WeightsError, match="ends captions with id 1, the text encoder's config says 7"):
        Clip(folder)


def resize(folder: Path, vocab_size: int) -> None:
    """Give the text encoder another number of embeddings, and load it."""
    weights = load_file(folder / WEIGHTS)
    name = "text_model.embeddings.token_embedding.weight"
    config = json.loads((folder / CONFIG).read_text())
    edit(folder / CONFIG, text_config=config["text_config"] | {"vocab_size": vocab_size})
    save_file(weights | {name: weights[name][:vocab_size].clone()}, folder / WEIGHTS)
    try:
        Clip(folder)
    finally:
        save_file(weights, folder / WEIGHTS)


def config_size(folder: Path) -> int:
    """Return the number of embeddings that the weights have."""
    return len(load_file(folder / WEIGHTS)["text_model.embeddings.token_embedding.weight"])


def test_a_clip_without_its_image_encoder_is_refused_by_name(folder: Path) -> None:
    weights = {name: value for name, value in load_file(folder / WEIGHTS).items() if name.startswith("text_")}
    save_file(weights, folder / WEIGHTS)
    with pytest.raises(WeightsError, match=r"weights of the network are missing: logit_scale, vision_model\."):
        Clip(folder)


@pytest.mark.parametrize("prefix", ["text_model.", ""])
def test_text_encoders_load_with_and_without_the_prefix(folder: Path, tmp_path: Path, prefix: str) -> None:
    whole = Clip(folder)
    text = tmp_path / "text"
    whole.tokenizer.save_pretrained(text)
    whole.text.config.save_pretrained(text)
    edit(text / CONFIG, model_type="clip_text_model")
    save_file({f"{prefix}{name}": value.clone() for name, value in whole.text.state_dict().items()}, text / WEIGHTS)
    torch.testing.assert_close(Clip(text).text_states(["a picture"]), whole.text_states(["a picture"]))
