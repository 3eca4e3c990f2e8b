"""Plans beside nnU-Net's own planner, for random data sets (`make test-peers`)."""

from __future__ import annotations

import functools
import importlib
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from flows.pipelines.segmentation.planning.candidates import Candidate, Images, plan_candidates
from flows.pipelines.segmentation.planning.networks import NETWORKS, PlannedNetwork

pytest.importorskip("nnunetv2")
PLANNERS = {
    "nnunet": "ExperimentPlanner",
    "residual_encoder_m": "nnUNetPlannerResEncM",
    "residual_encoder_l": "nnUNetPlannerResEncL",
    "residual_encoder_xl": "nnUNetPlannerResEncXL",
}
"""Networks to the classes of nnU-Net that plan for them."""
MUST_BE_EQUAL = 0.975


def random_images(rng: np.random.Generator) -> Images:
    """Draw a data set: cubes or thick slices along any axis, one scanner or many, from small crops to whole bodies."""
    number = int(rng.integers(5, 400))
    finest = float(np.exp(rng.uniform(np.log(0.3), np.log(2.5))))
    spacing = np.full(3, finest) * rng.choice([1.0, 1.0, rng.uniform(1, 1.3)], 3)
    extent = np.exp(rng.uniform(np.log(30), np.log(450), 3))
    if rng.random() < 0.5:
        axis = int(rng.integers(3))
        spacing[axis] *= rng.uniform(2, 12)
        extent[axis] = rng.uniform(80, 300)
    shapes = np.clip(extent / spacing, 8, 700)
    spacings = np.tile(spacing, (number, 1)).round(3)
    if rng.random() < 0.6:  # many scanners
        spacings = (spacings * np.exp(rng.normal(0, 0.15, (number, 3)))).round(int(rng.integers(2, 6)))
    sizes = (shapes * np.exp(rng.normal(0, rng.uniform(0, 0.2), (number, 3)))).round().clip(4).astype(int)
    return Images(spacings.tolist(), sizes.tolist(), int(rng.integers(2, 20)))


@pytest.fixture(scope="module")
def planners(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """nnU-Net's planners, whose folders are temporary, and that build each network once."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("raw", "preprocessed", "results"):
            patch.setenv(f"nnUNet_{name}", str(tmp_path_factory.mktemp(name)))
        package = "nnunetv2.experiment_planning.experiment_planners"
        module = importlib.import_module(f"{package}.default_experiment_planner")
        residual = importlib.import_module(f"{package}.residual_unets.residual_encoder_unet_planners")
        planner = module.ExperimentPlanner
        estimate = planner.static_estimate_VRAM_usage
        known: dict[str, Any] = {}

        def remembered(patch_size: Any, *arguments: Any) -> Any:
            key = str((patch_size, arguments))
            if key not in known:
                with torch.device("meta"):  # it counts features, for which weights need no memory
                    known[key] = estimate(patch_size, *arguments)
            return known[key]

        patch.setattr(planner, "static_estimate_VRAM_usage", staticmethod(functools.wraps(estimate)(remembered)))
        yield SimpleNamespace(**vars(residual), nnUNet_raw=module.nnUNet_raw, folder=module.nnUNet_preprocessed)


def planned_by_nnunet(planners: Any, name: str, images: Images) -> dict[str, Any]:
    """Plans of nnU-Net, whose arrays are z, y, x."""
    raw, preprocessed = Path(planners.nnUNet_raw) / "Dataset001_X", Path(planners.folder) / "Dataset001_X"
    for folder in (raw, preprocessed):
        folder.mkdir(exist_ok=True)
    for plans in preprocessed.glob("*Plans.json"):
        plans.unlink()
    dataset = {
        "channel_names": {"0": "MRI"},
        "labels": {"background": 0} | {str(value): value for value in range(1, images.num_classes)},
        "numTraining": len(images.shapes),
        "file_ending": ".nii.gz",
        "overwrite_image_reader_writer": "NibabelIO",
        "dataset": {"case": {"images": ["case_0000.nii.gz"], "label": "case.nii.gz"}},
    }
    fingerprint = {
        "spacings": [list(spacing)[::-1] for spacing in images.spacings],
        "shapes_after_crop": [list(shape)[::-1] for shape in images.shapes],
        "foreground_intensity_properties_per_channel": {},
        "median_relative_size_after_cropping": 1.0,
    }
    (raw / "dataset.json").write_text(json.dumps(dataset))
    (preprocessed / "dataset_fingerprint.json").write_text(json.dumps(fingerprint))
    found: dict[str, Any] = getattr(planners, PLANNERS[name])(1, NETWORKS[name].memory_gb).plan_experiment()
    return found


def differences(ours: Candidate, planned: PlannedNetwork, theirs: dict[str, Any], axes: list[int]) -> list[str]:
    """Fields of two plans that differ; ``axes`` are those of ours, in the order of theirs."""
    own = ours.in_order(axes).sizes
    network = theirs["architecture"]["arch_kwargs"]
    pairs = {
        "patch": (own.topology.patch_size, theirs["patch_size"]),
        "strides": (((1,) * len(axes), *own.topology.strides), network["strides"]),
        "kernels": (own.topology.kernels, network["kernel_sizes"]),
        "channels": (own.channels, network["features_per_stage"]),
        "blocks": (
            planned.num_blocks(len(own.channels)),
            network.get("n_conv_per_stage") or network["n_blocks_per_stage"],
        ),
        "batch": (own.batch_size, theirs["batch_size"]),
    }
    found = [f"{name}: {one} and {other}" for name, (one, other) in pairs.items() if as_list(one) != as_list(other)]
    spacing = ours.in_order(axes).spacing
    return found + ([] if np.allclose(spacing, theirs["spacing"], rtol=1e-3) else [f"spacing: {spacing}, {theirs}"])


def as_list(value: Any) -> Any:
    return json.loads(json.dumps(value, default=int))


@pytest.mark.parametrize(("name", "num_data_sets"), [("nnunet", 200), *((name, 40) for name in list(PLANNERS)[1:])])
def test_random_data_sets_are_planned_as_by_nnunet(
    planners: Any, name: str, num_data_sets: int, capsys: pytest.CaptureFixture[str]
) -> None:
    rng, network = np.random.default_rng(0), NETWORKS[name]
    failed: list[tuple[int, list[str]]] = []
    low = 0
    for index in range(num_data_sets):
        images = random_images(rng)
        plans = planned_by_nnunet(planners, name, images)
        capsys.readouterr()
        order = [2 - axis for axis in plans["transpose_forward"]]
        candidates = {each.name: each for each in plan_candidates(images, network.memory_gb, network)}
        found = [] if set(candidates) == set(plans["configurations"]) - {"3d_cascade_fullres"} else ["candidates"]
        for kind, candidate in candidates.items():
            theirs = plans["configurations"].get(kind)
            axes = order if len(candidate.spacing) == 3 else [sorted(order[1:]).index(axis) for axis in order[1:]]
            found += [f"{kind}: {each}" for each in differences(candidate, network, theirs, axes)] if theirs else []
        low += "3d_lowres" in candidates
        if found:
            failed.append((index, found))
    equal = num_data_sets - len(failed)
    with capsys.disabled():
        print(f"\n{name}: {equal} of {num_data_sets} plans equal; {low} with a low resolution; {failed}")
    assert equal >= MUST_BE_EQUAL * num_data_sets
