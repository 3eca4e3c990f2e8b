"""Folders of networks: every variant gives the same network, or is refused with the names of its weights."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL
from safetensors.torch import load_file, save_file
from torch import Tensor

from data_pipelines.errors import WeightsError
from tests.support.encoders import write_autoencoder, write_clip
from unet_models.formats.clip_folder import Clip
from unet_models.networks.autoencoder import WEIGHTS, load_autoencoder
from unet_models.networks.pretrained import load_pretrained

Weights = dict[str, Tensor]


def change(folder: Path, edit: Callable[[Weights], Weights]) -> None:
    """Rewrite the weights of a folder."""
    tensors = edit(load_file(folder / WEIGHTS))
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / WEIGHTS)


def refusal(folder: Path) -> str:
    """Return the message that the folder is refused with."""
    with pytest.raises(WeightsError) as raised:
        load_pretrained(AutoencoderKL, folder, WEIGHTS)
    assert str(folder) in str(raised.value)
    return str(raised.value)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_autoencoder(tmp_path / "vae", 16)


def test_half_precision_is_loaded_in_float32(folder: Path) -> None:
    whole = load_autoencoder(folder).state_dict()
    for dtype in (torch.float16, torch.bfloat16):
        change(folder, lambda weights, dtype=dtype: {k: v.to(dtype) for k, v in weights.items()})
        loaded = load_autoencoder(folder)
        assert {value.dtype for value in loaded.state_dict().values()} == {torch.float32}
        torch.testing.assert_close(dict(loaded.state_dict()), dict(whole), rtol=1e-2, atol=1e-2)


def test_weights_in_several_files_are_loaded_and_one_that_is_gone_is_refused(folder: Path) -> None:
    whole = load_autoencoder(folder)
    (folder / WEIGHTS).unlink()
    whole.save_pretrained(folder, max_shard_size="10KB")
    torch.testing.assert_close(dict(load_autoencoder(folder).state_dict()), dict(whole.state_dict()))
    sorted(folder.glob("*-of-*"))[0].unlink()
    assert "the weights cannot be loaded" in refusal(folder)


def test_missing_weights_are_named(folder: Path) -> None:
    change(folder, lambda weights: {k: v for k, v in weights.items() if not k.startswith("encoder.conv_in")})
    assert "2 weights of the network are missing: encoder.conv_in.bias, encoder.conv_in.weight;" in refusal(folder)


@pytest.mark.parametrize("prefix", ["first_stage_model.", "vae.", "module."])
def test_weights_under_other_names_are_named(folder: Path, prefix: str) -> None:
    change(folder, lambda weights: {prefix + k: v for k, v in weights.items()})
    message = refusal(folder)
    assert "are missing: decoder." in message
    assert f"not used: {prefix}decoder." in message


def test_weights_of_another_shape_are_named(folder: Path) -> None:
    change(folder, lambda weights: weights | {"quant_conv.bias": torch.zeros(5)})
    assert "1 weights of the network are of another shape: quant_conv.bias ([5] instead of [8])" in refusal(folder)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_named(folder: Path, value: float) -> None:
    change(folder, lambda weights: weights | {"quant_conv.bias": torch.full((8,), value)})
    assert "1 weights hold NaN or infinity: quant_conv.bias" in refusal(folder)


def test_further_weights_are_said_and_not_used(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    change(folder, lambda weights: weights | {"loss.logvar": torch.zeros(1)})
    with caplog.at_level(logging.WARNING):
        load_autoencoder(folder)
    assert "1 weights are not part of the network and not used: loss.logvar" in caplog.text


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("diffusion_pytorch_model.bin", "pickles are not read: load the network and write it by save_pretrained"),
        ("diffusion_pytorch_model.fp16.safetensors", f"rename diffusion_pytorch_model.fp16.safetensors to {WEIGHTS}"),
    ],
)
def test_weights_in_other_files_are_not_looked_at(folder: Path, name: str, words: str) -> None:
    (folder / WEIGHTS).rename(folder / name)
    message = refusal(folder)
    assert f"has no {WEIGHTS}, found ['{name}']" in message
    assert words in message


def test_autoencoders_of_other_images_are_refused(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"in_channels": 1}))
    with pytest.raises(WeightsError, match=r"in_channels and out_channels are \(1, 3\)"):
        load_autoencoder(folder)


def test_nothing_is_written_over_the_progress_of_a_stage(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    folder = write_clip(tmp_path / "clip", 16)
    capfd.readouterr()
    Clip(folder)
    assert capfd.readouterr().err == ""
