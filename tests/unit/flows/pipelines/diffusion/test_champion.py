"""Which champions of the diffusion pipeline are compared, and on what."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from data_pipelines.errors import InputError
from flows.pipelines.diffusion.champion import check_fits
from flows.pipelines.diffusion.evaluation.units import statistic
from tests.support.diffusion import diffusion_config
from unet_models.formats import denoiser_folder
from unet_models.specs.diffusion import Bundle


@pytest.mark.parametrize(
    ("context", "bundle", "message"),
    [
        (128, {}, ""),
        (128, {"latent_shape": (4, 4, 4)}, "it generates images of 8 pixels, the data have 64"),
        (None, {}, "its conditions are none, those of this model text"),
        (128, {"classes": ["cat"]}, "its conditions are text, class, those of this model text"),
        (128, {"image_condition": {"kind": "masked"}}, "its conditions are text, masked image, those"),
    ],
)
def test_a_champion_must_draw_the_same_size_under_the_same_conditions(
    context: int | None, bundle: dict[str, object], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = SimpleNamespace(spec=SimpleNamespace(context_dim=context))
    monkeypatch.setattr(denoiser_folder, "load_denoiser", lambda folder: network)
    (tmp_path / "vae").mkdir()
    (tmp_path / "vae" / "config.json").write_text(json.dumps({"block_out_channels": [8, 8]}))
    fixed = {"noise": {}, "sample": {}, "latent_shape": (4, 32, 32), "scaling_factor": 1.0}
    described = Bundle.model_validate(fixed | bundle)
    if not message:
        check_fits(tmp_path, described, diffusion_config())
        return
    with pytest.raises(InputError, match=message):
        check_fits(tmp_path, described, diffusion_config())


def test_one_training_image_is_no_distribution() -> None:
    generated = {"generated/clip": np.random.default_rng(0).normal(size=(8, 4))}
    one, two = ({"train/clip": np.random.default_rng(1).normal(size=(n, 4))} for n in (1, 2))
    assert statistic("frechet_distance", generated, one) is None
    assert statistic("frechet_distance", generated, two) is not None
