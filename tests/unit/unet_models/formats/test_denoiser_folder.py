"""Folders of denoisers: every backbone comes back as it was, and is one of diffusers where diffusers has it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel

from data_pipelines.errors import WeightsError
from tests.support.denoisers import BACKBONES, inputs, perturbed
from unet_models.formats.denoiser_folder import SPEC, diffusers_obstacle, load_denoiser, save_denoiser
from unet_models.networks.build import build_denoiser


@pytest.mark.parametrize(
    ("backbone", "changes"),
    [("unet", {}), ("unet", {"context_dim": None}), ("uvit", {}), ("dit", {"num_class_embeds": 3})],
)
def test_a_folder_gives_the_same_network(backbone: str, changes: dict[str, Any], tmp_path: Path) -> None:
    spec = BACKBONES[backbone].model_copy(update=changes)
    model = perturbed(build_denoiser(spec)).eval()
    save_denoiser(model, tmp_path)
    back = load_denoiser(tmp_path)
    assert back.spec == spec
    assert not back.training
    assert torch.equal(back(**inputs(spec)), model(**inputs(spec)))
    if diffusers_obstacle(spec):
        with pytest.raises(OSError, match=r"config\.json"):
            UNet2DConditionModel.from_pretrained(tmp_path, local_files_only=True)
    else:
        UNet2DConditionModel.from_pretrained(tmp_path, local_files_only=True)


def test_a_folder_that_describes_another_network(tmp_path: Path) -> None:
    save_denoiser(build_denoiser(BACKBONES["dit"]), tmp_path)
    wider = BACKBONES["dit"].model_copy(update={"width": 32})
    (tmp_path / SPEC).write_text(wider.model_dump_json())
    with pytest.raises(WeightsError, match=r"must be \(32, 4, 2, 2\), got \(16, 4, 2, 2\)"):
        load_denoiser(tmp_path)
    (tmp_path / SPEC).write_text('{"backbone": "vit"}')
    with pytest.raises(WeightsError, match=r"denoiser\.json: .*choose unet, uvit or dit$"):
        load_denoiser(tmp_path)
