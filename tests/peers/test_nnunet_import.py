"""Imported models segment as nnU-Net does (`make test-peers`)."""

from __future__ import annotations

import copy
import io
import os
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any
from unittest import mock

import nibabel
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from flows.pipelines.segmentation.nnunet.plans import read_plans
from flows.pipelines.segmentation.nnunet.results import find_checkpoints, member_weights, write_files
from flows.pipelines.segmentation.segmenter import Segmenter
from tests.support.nnunet import architecture, dataset, plans, write_results
from unet_models.formats.nnunet import read_checkpoint

with mock.patch.dict(os.environ, {"nnUNet_raw": ".", "nnUNet_preprocessed": ".", "nnUNet_results": "."}):
    predictors = pytest.importorskip("nnunetv2.inference.predict_from_raw_data")
    networks = pytest.importorskip("nnunetv2.utilities.get_network_from_plans")

LEAST_SAME = 0.9999


def their_network(plan: dict[str, Any], num_channels: int, seed: int) -> dict[str, Tensor]:
    """Weights of nnU-Net's network whose classes lie apart: noise leaves too many voxels between two."""
    torch.manual_seed(seed)
    (settings,) = plan["configurations"].values()
    described = copy.deepcopy(settings["architecture"])
    network = networks.get_network_from_plans(
        described["network_class_name"],
        described["arch_kwargs"],
        described["_kw_requires_import"],
        num_channels,
        3,
        deep_supervision=True,
    )
    for module in network.modules():
        if isinstance(module, (nn.InstanceNorm2d, nn.InstanceNorm3d)):
            nn.init.normal_(module.weight, 1.0, 0.2)
            nn.init.normal_(module.bias, 0.0, 0.2)
    state: dict[str, Tensor] = network.state_dict()
    return state


def write_volume(path: Path, shape: Sequence[int], spacing: Sequence[float], seed: int, empty: int = 0) -> str:
    """Blobs in an oblique volume; ``empty`` voxels at its near sides are 0."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn((1, 1, 5, 5, 5), generator=generator)
    image = nn.functional.interpolate(coarse, tuple(shape), mode="trilinear")[0, 0].mul(80).add(50).round()
    image[:empty] = image[:, :empty] = image[:, :, :empty] = 0
    affine = np.diag([-spacing[0], spacing[1], spacing[2], 1.0])
    affine[:3, 3] = [10, -20, 30]
    volume = nibabel.Nifti1Image(image.numpy().astype(np.int16), affine)
    volume.header.set_xyzt_units("mm")
    nibabel.save(volume, path)
    return str(path)


def theirs(folder: Path, files: list[list[str]], output: Path, folds: int) -> list[np.ndarray]:
    predictor = predictors.nnUNetPredictor(device=torch.device("cpu"), allow_tqdm=False, verbose=False)
    with redirect_stdout(io.StringIO()):
        predictor.initialize_from_trained_model_folder(str(folder), tuple(range(folds)))
        outputs = [str(output / f"{n}") for n in range(len(files))]
        with mock.patch.object(torch, "half", torch.float32):
            predictor.predict_from_files_sequential(files, outputs)
    return [np.asarray(nibabel.load(f"{path}.nii.gz").dataobj) for path in outputs]


ISOTROPIC = architecture(3)
REGIONS = {"labels": {"background": 0, "whole": [1, 2, 3], "core": [2, 3], "rim": 3}, "regions_class_order": [1, 2, 3]}
CASES: dict[str, tuple[dict[str, Any], int, tuple[int, ...] | None, int]] = {
    "3-D": (plans((16, 24, 20), (1.0, 1.0, 1.0), ISOTROPIC), 1, (0, 1, 2), 1),
    "regions": (plans((16, 24, 20), (1.0, 1.0, 1.0), ISOTROPIC), 1, (0, 1, 2), 1),
    "two folds, no mirrors": (plans((16, 16, 16), (1.2, 0.9, 1.0), ISOTROPIC), 1, None, 2),
    "residual encoder": (plans((16, 16, 16), (1.0, 1.0, 1.0), architecture(3, residual=True)), 1, (0, 1), 1),
    "2-D": (plans((24, 20), (0.8, 1.1), architecture(2)), 1, (0, 1), 1),
    "CT and MR, transposed": (
        plans(
            (20, 16, 24),
            (1.0, 1.3, 0.8),
            ISOTROPIC,
            ("CTNormalization", "ZScoreNormalization"),
            transpose_forward=[2, 0, 1],
            transpose_backward=[1, 2, 0],
        ),
        2,
        (0, 1, 2),
        1,
    ),
    "thick slices, odd patch, flat kernels": (
        plans(
            (5, 24, 20),
            (3.3, 0.7, 0.8),
            architecture(3, kernels=[[1, 3, 3], [3, 3, 3], [3, 3, 3]], strides=[[1, 1, 1], [1, 2, 2], [1, 2, 2]]),
        ),
        1,
        (1, 2),
        1,
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_imported_models_segment_as_nnunet_does(name: str, tmp_path: Path) -> None:
    plan, num_channels, mirror_axes, num_folds = CASES[name]
    weights = [their_network(plan, num_channels, seed) for seed in range(num_folds)]
    declared = dataset(num_channels) | (REGIONS if name == "regions" else {})
    results = write_results(tmp_path / "results", plan, declared, weights, mirror_axes)
    spacings = [(0.7, 0.9, 4.2 if "thick" in name else 1.4), (1.0, 1.0, 1.0)]
    files = [
        [
            write_volume(
                tmp_path / f"{case}_{channel:04d}.nii.gz", (37, 45, 17), spacing, 10 * case + channel, 3 * case
            )
            for channel in range(num_channels)
        ]
        for case, spacing in enumerate(spacings)
    ]
    expected = theirs(results, [list(each) for each in files], tmp_path, num_folds)

    checkpoints = [read_checkpoint(path) for path in find_checkpoints(results).values()]
    bundle = read_plans(results, checkpoints[0].configuration, checkpoints[0].mirror_axes, len(checkpoints))
    write_files(tmp_path / "bundle", bundle, member_weights(bundle, [each.weights for each in checkpoints]))
    segmenter = Segmenter.from_folder(tmp_path / "bundle", device="cpu")
    for paths, labels in zip(files, expected, strict=True):
        ours, _ = segmenter.segment_files(paths)
        assert len(np.unique(labels)) > 1
        assert (ours == labels).mean() >= LEAST_SAME
