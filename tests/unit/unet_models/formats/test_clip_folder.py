"""CLIP folders: text states are those of training, and what a folder lacks is named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open

from data_pipelines.errors import WeightsError
from tests.support.encoders import CAPTIONS, CLIP
from unet_models.formats.clip_config import CONFIG
from unet_models.formats.clip_folder import (
    PREPROCESSOR,
    TEXT_PREFIX,
    WEIGHTS,
    Clip,
    save_clip,
    save_text_encoder,
    save_tokenizer,
)
from unet_models.networks.clip import build_clip
from unet_models.networks.tokenizer import tokenize, train_tokenizer


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return train_tokenizer(CAPTIONS, 560, 12)


@pytest.fixture(scope="module")
def network(tokenizer: Any) -> Any:
    torch.manual_seed(0)
    return build_clip(CLIP, tokenizer, 16).eval()


@pytest.fixture
def folder(network: Any, tokenizer: Any, tmp_path: Path) -> Path:
    save_clip(tmp_path / "clip", network, tokenizer, 16)
    return tmp_path / "clip"


def test_text_states_are_those_of_the_network(network: Any, tokenizer: Any, folder: Path) -> None:
    clip = Clip(folder)
    captions = ["a cat", "a small red circle"]
    states = network.text_model(input_ids=tokenize(tokenizer, captions)).last_hidden_state
    assert states.shape == (2, 12, 16)
    torch.testing.assert_close(clip.text_states(captions), states)
    assert clip.context_dim == 16
    assert clip.has_images


def test_text_encoder_alone_gives_the_same_states(folder: Path, tokenizer: Any, tmp_path: Path) -> None:
    """The folder that a diffusers pipeline reads, its tokenizer beside it."""
    whole = Clip(folder)
    save_text_encoder(tmp_path / "pipeline" / "text_encoder", whole.text)
    with pytest.raises(WeightsError, match="no tokenizer"):
        Clip(tmp_path / "pipeline" / "text_encoder")
    save_tokenizer(tmp_path / "pipeline" / "tokenizer", tokenizer)
    text = Clip(tmp_path / "pipeline" / "text_encoder")
    assert not text.has_images
    torch.testing.assert_close(text.text_states(["a cat"]), whole.text_states(["a cat"]))


def test_bundles_have_the_names_that_transformers_4_looks_for(folder: Path, tokenizer: Any, tmp_path: Path) -> None:
    """Version 4 takes a text encoder without the prefix for one without weights, and needs the vocabulary as files."""
    save_text_encoder(tmp_path / "text", Clip(folder).text)
    with safe_open(tmp_path / "text" / WEIGHTS, "pt") as weights:
        names = list(weights.keys())
    assert len(names) == len(Clip(folder).text.state_dict())
    assert all(name.startswith(TEXT_PREFIX) for name in names)
    config = json.loads((tmp_path / "text" / CONFIG).read_text())
    assert (config["model_type"], config["architectures"]) == ("clip_text_model", ["CLIPTextModel"])
    save_tokenizer(tmp_path / "tokenizer", tokenizer)
    vocabulary = json.loads((tmp_path / "tokenizer" / "vocab.json").read_text())
    merges = (tmp_path / "tokenizer" / "merges.txt").read_text().splitlines()
    assert vocabulary == tokenizer.get_vocab()
    assert merges[0].startswith("#version")
    assert all("".join(line.split(" ")) in vocabulary for line in merges[1:])
    assert len(merges) - 1 == len(vocabulary) - 2 * 256 - 2, "two tokens, every byte twice, then one of each merge"


def test_folder_without_a_preprocessor_is_read_as_openais(folder: Path) -> None:
    (folder / PREPROCESSOR).unlink()
    preprocessor = Clip(folder).preprocessor
    assert preprocessor.side == 16  # of the config
    assert preprocessor.mean.flatten().tolist() == pytest.approx([0.48145466, 0.4578275, 0.40821073])
    assert preprocessor.std.flatten().tolist() == pytest.approx([0.26862954, 0.26130258, 0.27577711])


def test_folders_that_cannot_be_read(folder: Path) -> None:
    content = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(content[:-1])
    with pytest.raises(WeightsError, match=r"the weights cannot be loaded \(SafetensorError"):
        Clip(folder)
    (folder / WEIGHTS).rename(folder / "pytorch_model.bin")
    with pytest.raises(WeightsError, match=r"has no model\.safetensors, found .*pytorch_model\.bin.*save_pretrained"):
        Clip(folder)
    (folder / CONFIG).write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(WeightsError, match="model_type is 'bert'; give a folder of `clip` or `clip_text_model`"):
        Clip(folder)
    for text in ("{", "[1]"):
        (folder / CONFIG).write_text(text)
        with pytest.raises(WeightsError, match=r"config\.json: cannot be read"):
            Clip(folder)
    (folder / CONFIG).unlink()
    with pytest.raises(WeightsError, match=r"config\.json: cannot be read"):
        Clip(folder)


def test_saving_draws_no_progress_bar(
    network: Any, tokenizer: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    save_clip(tmp_path / "clip", network, tokenizer, 16)
    assert capfd.readouterr().err == ""
