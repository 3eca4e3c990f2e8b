"""Folders of diffusers: two plain files, written whole, and whatever does not fit is named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from diffusers import UNet2DConditionModel
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from data_pipelines.errors import WeightsError
from tests.support.denoisers import SMALL, perturbed, small
from unet_models.formats.diffusers_config import CONFIG, denoiser_config
from unet_models.formats.diffusers_folder import WEIGHTS, load_from_diffusers, save_as_diffusers
from unet_models.networks.denoisers.unet import DenoisingUNet


def test_folder_holds_two_plain_files(tmp_path: Path) -> None:
    model = perturbed(DenoisingUNet(SMALL)).to(memory_format=torch.channels_last)
    for _ in range(2):  # over an older one, too
        save_as_diffusers(model, tmp_path / "new" / "folder")
    assert sorted(p.name for p in (tmp_path / "new" / "folder").iterdir()) == [CONFIG, WEIGHTS]
    with safe_open(tmp_path / "new" / "folder" / WEIGHTS, "pt") as file:
        assert file.metadata() == {"format": "pt"}
    back = load_from_diffusers(tmp_path / "new" / "folder")
    torch.testing.assert_close(back.state_dict(), model.state_dict(), rtol=0, atol=0)


def test_half_precision_weights_become_float32(tmp_path: Path) -> None:
    save_as_diffusers(DenoisingUNet(SMALL).half(), tmp_path)
    assert load_file(tmp_path / WEIGHTS)["conv_in.weight"].dtype == torch.float16
    assert {p.dtype for p in load_from_diffusers(tmp_path).parameters()} == {torch.float32}


def test_loaded_weights_do_not_hang_on_the_file(tmp_path: Path) -> None:
    save_as_diffusers(perturbed(DenoisingUNet(SMALL)), tmp_path)
    model = load_from_diffusers(tmp_path)
    before = model.conv_in.weight.clone()
    (tmp_path / WEIGHTS).write_bytes(bytes((tmp_path / WEIGHTS).stat().st_size))
    assert torch.equal(model.conv_in.weight, before)


def test_self_attention_alone_has_no_diffusers_counterpart(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="context_dim: none, but diffusers has no"):
        save_as_diffusers(DenoisingUNet(small(context_dim=None)), tmp_path / "folder")
    assert not (tmp_path / "folder").exists()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_as_diffusers(DenoisingUNet(SMALL), tmp_path)
    return tmp_path


def test_weights_that_do_not_fit(folder: Path) -> None:
    weights = load_file(folder / WEIGHTS)
    save_file(weights | {"conv_in.lora": torch.zeros(1)}, folder / WEIGHTS)
    with pytest.raises(WeightsError, match=r"1 unknown weights.*\['conv_in.lora'\]"):
        load_from_diffusers(folder)
    save_file({k: v for k, v in weights.items() if "time_embedding" not in k}, folder / WEIGHTS)
    with pytest.raises(WeightsError, match=r"4 missing weights.*time_embedding.linear_1.bias"):
        load_from_diffusers(folder)
    save_file(weights | {"conv_in.bias": torch.zeros(5)}, folder / WEIGHTS)
    with pytest.raises(WeightsError, match=r"conv_in.bias must be \(8,\), got \(5,\)"):
        load_from_diffusers(folder)


def test_folders_that_cannot_be_read(folder: Path) -> None:
    content = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(content[:-1])
    with pytest.raises(WeightsError, match="not a complete safetensors file"):
        load_from_diffusers(folder)
    (folder / WEIGHTS).rename(folder / "diffusion_pytorch_model.bin")
    with pytest.raises(WeightsError, match=r"one file.*no shards, no .bin.*found \['diffusion_pytorch_model.bin'\]"):
        load_from_diffusers(folder)
    (folder / CONFIG).write_text("{")
    with pytest.raises(WeightsError, match=r"config\.json: not JSON"):
        load_from_diffusers(folder)
    (folder / CONFIG).write_text(json.dumps([1]))
    with pytest.raises(WeightsError, match="must be a JSON object, got list"):
        load_from_diffusers(folder)
    (folder / CONFIG).unlink()
    with pytest.raises(WeightsError, match=r"no such file.*unet/"):
        load_from_diffusers(folder)


def test_shards_are_refused(tmp_path: Path) -> None:
    theirs = UNet2DConditionModel.from_config(denoiser_config(SMALL))
    theirs.save_pretrained(tmp_path, max_shard_size="50KB")
    with pytest.raises(WeightsError, match=r"no shards.*-00001-of-.*max_shard_size"):
        load_from_diffusers(tmp_path)
