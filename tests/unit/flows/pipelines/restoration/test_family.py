"""Members of the segmentation family as restoration networks: which restore an image, and which are refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from data_pipelines.errors import ConfigError
from flows.pipelines.catalog import load_config
from flows.pipelines.restoration.config import RestorationConfig
from tests.support.members import MEMBERS, small
from unet_models.restoration.build import build_task
from unet_models.restoration.restorer import Restorer

SUPERVISED = (
    ("train: model.deep_supervision: images have one output; set it to 0", "train.model.deep_supervision=0"),
    ("evaluate.tile: with train.model.norm instance every pixel depends on the whole image", "evaluate.tile=null"),
)
VALID = (("train: model.padding: restored images keep their size", "train.model.padding=same"),)
REFUSED = {
    "unet_2015": VALID,
    **dict.fromkeys(
        ("nnunet", "residual_encoder", "mednext_s", "mednext_b", "mednext_m", "mednext_l"),
        SUPERVISED,
    ),
}
"""Member to the errors of its preset, one after the other, each with the setting that ends it."""


@pytest.mark.parametrize("name", MEMBERS)
def test_a_member_restores_an_image_or_is_refused(name: str, tmp_path: Path) -> None:
    """As it is, or with the settings that its errors ask for. Untrained it is the baseline."""
    file, settings = tmp_path / "config.yaml", list[str]()
    file.write_text(json.dumps({"pipeline": "restoration", "train": {"model": small(name).model_dump(mode="json")}}))
    for message, setting in REFUSED.get(name, ()):
        with pytest.raises(ConfigError, match=message):
            load_config(file, settings)
        settings.append(setting)
    config = load_config(file, settings)
    assert isinstance(config, RestorationConfig)
    restorer = Restorer.build(config.train.model, build_task(config.task)).eval()
    image = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        restored = restorer(image)
    assert restored.shape == (1, 3, 32, 32)
    torch.testing.assert_close(restored, restorer.task.baseline(image), rtol=0, atol=1e-6)
