"""Checkpoints of nnU-Net: numbers are read, objects are refused, weights get the names and places of ours."""

from __future__ import annotations

import fractions
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from data_pipelines.errors import WeightsError
from tests.support.nnunet import architecture, dataset, plans, write_results
from unet_models.formats.nnunet import convert_weights, read_checkpoint
from unet_models.networks.build import build_network
from unet_models.specs.networks import UNetSpec

PLANS = plans((8, 8, 8), (1.0, 1.0, 1.0), architecture(3))


def checkpoint(folder: Path, extra: dict[str, Any] | None = None) -> Path:
    write_results(folder, PLANS, dataset(), [{"a": torch.arange(3.0)}], (0, 2), extra)
    return folder / "fold_0" / "checkpoint_final.pth"


def test_a_checkpoint_with_the_numbers_of_its_log_is_read(tmp_path: Path) -> None:
    found = read_checkpoint(checkpoint(tmp_path))
    assert (found.configuration, found.mirror_axes) == ("3d_fullres", (0, 2))
    torch.testing.assert_close(found.weights["a"], torch.arange(3.0))


class Malicious:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.path}",)


def test_what_would_run_code_is_refused_in_one_line(tmp_path: Path) -> None:
    path = checkpoint(tmp_path, {"logging": Malicious(tmp_path / "ran")})
    with pytest.raises(WeightsError, match=r"checkpoint_final.pth: is refused .* an object posix.system, which is not"):
        read_checkpoint(path)
    assert not (tmp_path / "ran").exists()
    with pytest.raises(WeightsError, match=r"an object fractions.Fraction") as caught:
        read_checkpoint(checkpoint(tmp_path, {"logging": fractions.Fraction(1, 2)}))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut off", b"\x80\x02}q\x00."])
def test_damaged_files_are_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "checkpoint_final.pth"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=r"checkpoint_final.pth: is "):
        read_checkpoint(path)


def test_a_checkpoint_of_another_framework_is_refused(tmp_path: Path) -> None:
    torch.save({"state_dict": {}}, tmp_path / "a.pth")
    with pytest.raises(WeightsError, match="is no checkpoint of nnU-Net 2"):
        read_checkpoint(tmp_path / "a.pth")


OURS_TO_THEIRS = {
    "encoder.stem.conv.weight": "encoder.stem.convs.0.conv.weight",
    "encoder.stages.1.0.conv2.bias": "encoder.stages.1.blocks.0.conv2.conv.bias",
    "encoder.stages.1.0.norm2.weight": "encoder.stages.1.blocks.0.conv2.norm.weight",
    "encoder.stages.1.0.shortcut.1.weight": "encoder.stages.1.blocks.0.skip.1.conv.weight",
    "encoder.stages.1.0.shortcut.2.bias": "encoder.stages.1.blocks.0.skip.1.norm.bias",
    "encoder.stages.1.convs.1.norm.bias": "encoder.stages.1.0.convs.1.norm.bias",
    "decoder.stages.0.convs.1.conv.weight": "decoder.stages.0.convs.1.conv.weight",
    "decoder.upsamples.0.conv.weight": "decoder.transpconvs.0.weight",
    "decoder.heads.0.bias": "decoder.seg_layers.0.bias",
}


@pytest.mark.parametrize(("ours", "theirs"), OURS_TO_THEIRS.items())
def test_names(ours: str, theirs: str) -> None:
    value = torch.randn(2, 2)
    doubled = {theirs: value, f"decoder.{theirs}": value, "encoder.stem.convs.0.all_modules.0.weight": value}
    doubled = {name: tensor for name, tensor in doubled.items() if not name.startswith("decoder.decoder")}
    assert convert_weights(doubled, {ours: value}).keys() == {ours}
    assert torch.equal(convert_weights({f"_orig_mod.{theirs}": value}, {ours: value})[ours], value)


def test_the_skip_comes_first() -> None:
    joined = torch.randn(2, 6, 3, 3)
    name = "decoder.stages.0.convs.0.conv.weight"
    found = convert_weights({name: joined}, {name: joined})[name]
    assert torch.equal(found, torch.cat([joined[:, 3:], joined[:, :3]], dim=1))


def test_weights_of_another_architecture_are_named() -> None:
    own: dict[str, Tensor] = build_network(UNetSpec(channels=(4, 8)), 1, 2).state_dict()
    with pytest.raises(WeightsError, match=r"another architecture: 28 names are on one side alone, such as decoder"):
        convert_weights({}, own)
    with pytest.raises(WeightsError, match=r"head is \[2\], not \[3\]"):
        convert_weights({"head": torch.zeros(2)}, {"head": torch.zeros(3)})
