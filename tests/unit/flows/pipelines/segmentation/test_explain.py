"""Pictures of gates and saliency of a model's folder; a class that it does not have is named."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from data_pipelines.errors import InputError
from data_pipelines.volumes.specs import PreprocessSpec
from flows.pipelines.segmentation.bundle import Bundle
from flows.pipelines.segmentation.explain import SegmentationExplainer
from flows.registry.bundle import WEIGHTS, write_bundle
from tests.support.volumes import numbered
from unet_models.networks.build import build_network
from unet_models.specs.networks import UNetSpec
from unet_models.specs.segmentation import PredictSpec


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Files of a registered model with one gate."""
    spec = UNetSpec(channels=(2, 3), skip="gated")
    torch.manual_seed(0)
    bundle = Bundle(
        model=spec,
        labels=numbered("background", "liver", "kidney"),
        channels=("CT",),
        patch_size=(8, 8, 8),
        preprocess=PreprocessSpec(),
        spacing=None,
        mirror_axes=(0,),
        predict=PredictSpec(),
    )
    write_bundle(tmp_path / "bundle", bundle)
    save_file(build_network(spec, 1, 3, 3).state_dict(), tmp_path / "bundle" / WEIGHTS)
    return tmp_path / "bundle"


@pytest.mark.parametrize(("class_name", "classes"), [(None, ["kidney", "liver"]), ("liver", ["liver"])])
def test_each_gate_each_class_and_stage_is_a_picture(
    folder: Path, tmp_path: Path, class_name: str | None, classes: list[str]
) -> None:
    image = np.random.default_rng(0).normal(size=(9, 10, 11)).astype(np.float32)
    nib.save(nib.Nifti1Image(image, np.eye(4)), tmp_path / "a.nii.gz")
    written = SegmentationExplainer(folder, class_name)({"path": str(tmp_path / "a.nii.gz")}, tmp_path / "out")
    saliency = [f"saliency-{name}-stage{stage}.png" for name in classes for stage in (1, 2)]
    assert sorted(path.name for path in written) == ["gates-mean.png", "gates-stage1.png", *saliency]
    assert all(path.is_file() for path in written)


@pytest.mark.parametrize("name", ["spleen", "background"])
def test_a_class_that_the_model_does_not_have_is_named(folder: Path, name: str) -> None:
    with pytest.raises(InputError, match=f"--class {name}: the model segments liver, kidney; name one of these"):
        SegmentationExplainer(folder, name)
