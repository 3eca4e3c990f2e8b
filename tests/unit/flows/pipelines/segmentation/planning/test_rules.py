"""A plan is a valid configuration; its values follow from the data, with reasons."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest

from data_pipelines.errors import ConfigError, DataError
from data_pipelines.volumes.checks import check_case
from data_pipelines.volumes.formats.images import write_picture
from data_pipelines.volumes.formats.nifti import write_nifti
from data_pipelines.volumes.sources.find import find_cases
from flows.cli import run_command
from flows.cli.plan import PlanOptions, planned_yaml
from flows.config.locations import state_folder
from flows.pipelines.catalog import load_config
from flows.pipelines.segmentation.config import SegmentationConfig
from flows.pipelines.segmentation.planning.candidates import Candidate, plan_candidates
from flows.pipelines.segmentation.planning.masks import guess_classes
from flows.pipelines.segmentation.planning.options import PlanningOptions
from flows.pipelines.segmentation.planning.rules import is_ct, plan_settings
from flows.pipelines.segmentation.planning.survey import survey

CLASSES = {"background": 0, "a": 1, "b": 2}


def write_volumes(
    folder: Path, spacings: list[float], classes: dict[str, Any], channel: str, shape: tuple[int, ...] = (24, 24, 12)
) -> None:
    for name in ("imagesTr", "labelsTr"):
        (folder / name).mkdir(parents=True)
    for index, thickness in enumerate(spacings):
        rng = np.random.default_rng(index)
        affine = np.diag([1.0, 1.0, thickness, 1.0])
        label = np.zeros(shape, np.uint8)
        label[4:12, 4:12, 2:8], label[12:16, 4:12, 2:8] = 1, 2
        image = rng.normal(40, 5, label.shape).round() + 100 * (label > 0)
        write_nifti(folder / "imagesTr" / f"case_{index}_0000.nii.gz", image.astype(np.int16), affine)
        write_nifti(folder / "labelsTr" / f"case_{index}.nii.gz", label, affine)
    text = {"name": "X", "channel_names": {"0": channel}, "labels": classes, "numTraining": len(spacings)}
    (folder / "dataset.json").write_text(json.dumps(text | {"file_ending": ".nii.gz"}))


@pytest.fixture(autouse=True)
def gpu(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Plan alike on every machine; a test may put True in."""
    found = [False]
    monkeypatch.setattr("flows.cli.plan.finds_gpu", lambda: found[-1])
    return found


def planned(folder: Path, within: str = "", **options: Any) -> tuple[SegmentationConfig, str]:
    text = planned_yaml(folder, PlanOptions(within, **options))
    path = folder.parent / "plan.yaml"
    path.write_text(text)
    config = load_config(path)
    assert isinstance(config, SegmentationConfig)
    return config, text


def test_ct_of_sided_organs(tmp_path: Path) -> None:
    classes = {"background": 0, "kidney left": 1, "kidney right": 2}
    write_volumes(tmp_path / "x.y", [2.0, 2.0, 3.0, 3.0], classes, "CT")
    config, text = planned(tmp_path / "x.y", "30m")
    assert config.registry.name == "X"
    assert config.data.preprocess.normalise == "intensities"
    (measured,) = config.data.preprocess.intensities or ()
    assert 120 < measured.low < 135 < measured.mean < 145 < measured.high < 160, "of the classes, around 140"
    assert measured.std == pytest.approx(5, abs=0.3)
    assert config.data.preprocess.spacing == (1.0, 1.0, 2.5)
    assert "Voxels are 1 x 1 x 2 mm to 1 x 1 x 3 mm" in text
    assert config.train.augment.mirror_axes == (1, 2)
    assert "kidney left, kidney right: classes of one side" in text
    assert config.train.within == 1800
    assert config.train.optimizer.name == "muon"
    assert len(config.train.patch_size) == 3


def write_masks(folder: Path, masks: list[np.ndarray]) -> Path:
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True)
    for index, mask in enumerate(masks):
        image = np.random.default_rng(index).integers(0, 200, mask.shape[:2]).astype(np.uint8)
        write_picture(folder / "images" / f"{index}.png", image)
        write_picture(folder / "masks" / f"{index}.png", mask)
    return folder


SQUARES = [np.kron(np.roll(np.eye(4, dtype=np.uint8), shift, 0), np.ones((8, 8), np.uint8)) for shift in range(4)]


@pytest.mark.parametrize(
    ("palette", "classes"),
    [
        ([0, 1], None),
        ([0, 255], {"background": 0, "foreground": 255}),
        ([0, 7], {"background": 0, "foreground": 7}),
        ([[0, 0, 0], [255, 0, 255]], {"background": "#000000", "colour ff00ff": "#ff00ff"}),
    ],
)
def test_masks_say_their_classes(tmp_path: Path, palette: list[int], classes: dict[str, int] | None) -> None:
    folder = write_masks(tmp_path / "set", [np.array(palette, np.uint8)[mask] for mask in SQUARES])
    config, text = planned(folder)
    assert config.data.classes == classes
    assert ("Nothing declares classes" in text) == (classes is not None)
    dataset = find_cases(config.data)
    assert check_case(dataset.cases[0], dataset, config.data).label.tolist() == SQUARES[0].tolist()


def test_several_values_are_several_classes(tmp_path: Path) -> None:
    folder = write_masks(tmp_path / "set", [mask * value for mask, value in zip(SQUARES, (5, 9, 5, 9), strict=True)])
    config, text = planned(folder)
    assert config.data.classes == {"background": 0, "class 5": 5, "class 9": 9}
    assert "the masks hold 0, 5, 9" in text


def test_declared_classes_and_soft_masks_are_left_to_the_checks(tmp_path: Path) -> None:
    folder = write_masks(tmp_path / "declared", [mask * 255 for mask in SQUARES])
    (folder / "classes.json").write_text('{"background": 0, "road": 255}')
    assert planned(folder)[0].data.classes is None
    soft = write_masks(tmp_path / "soft", [np.arange(1024, dtype=np.uint8).reshape(32, 32) for _ in SQUARES])
    with pytest.raises(DataError, match="label-values"):
        planned(soft)


def test_masks_that_no_check_lets_pass_say_nothing(tmp_path: Path) -> None:
    for name in ("images", "masks"):
        (tmp_path / name).mkdir()
    broken = np.array([[[0.0, np.nan]]], np.float32)
    for index, mask in enumerate([broken, np.full((1, 1, 2), 4, np.uint8), np.zeros((1, 1, 2), np.uint8)]):
        write_nifti(tmp_path / "images" / f"{index}.nii", np.ones((1, 1, 2)), np.eye(4))
        write_nifti(tmp_path / "masks" / f"{index}.nii", mask, np.eye(4))
    (tmp_path / "images" / "3.nii").write_bytes(b"")
    (tmp_path / "masks" / "3.nii").write_bytes(b"")
    assert guess_classes(tmp_path) == {"background": 0, "foreground": 4}


def test_regions_and_ignored_voxels_of_nnunet_are_planned_for(tmp_path: Path) -> None:
    labels = {"background": 0, "organ": [1, 2], "left half": 1, "ignore": 3}
    write_volumes(tmp_path / "set", [1.0, 1.0], labels, "MR")
    config, text = planned(tmp_path / "set")
    assert config.data.classes is None
    text = " ".join(text.replace("#", "").split())
    assert "0 background, 1 left half, 2, 3 ignore; regions organ (left half, 2), left half (left half)" in text
    assert config.train.augment.mirror_axes == (1, 2)


@pytest.mark.parametrize(("turned", "expected"), [(False, (1,)), (True, (0,))])
def test_slices_with_an_affine_say_which_axis_is_right_left(
    tmp_path: Path, turned: bool, expected: tuple[int, ...]
) -> None:
    """Of pictures it is the second one, of slices of NIfTI the first, as a rule."""
    affine = np.eye(4)[[1, 0, 2, 3]] if turned else np.eye(4)
    for name in ("images", "masks"):
        (tmp_path / "set" / name).mkdir(parents=True)
    for index in range(5):
        image = np.random.default_rng(index).integers(0, 200, (40, 64, 1)).astype(np.uint8)
        write_nifti(tmp_path / "set" / "images" / f"{index}.nii", image, affine)
        write_nifti(tmp_path / "set" / "masks" / f"{index}.nii", image // 70, affine)
    (tmp_path / "set" / "classes.json").write_text(json.dumps({"background": 0, "left lung": 1, "right lung": 2}))
    assert planned(tmp_path / "set")[0].train.augment.mirror_axes == expected


def test_images_with_one_class(tmp_path: Path) -> None:
    for name in ("images", "masks"):
        (tmp_path / "set" / name).mkdir(parents=True)
    for index in range(5):
        image = np.random.default_rng(index).integers(0, 200, (40, 64)).astype(np.uint8)
        write_picture(tmp_path / "set" / "images" / f"{index}.png", image)
        write_picture(tmp_path / "set" / "masks" / f"{index}.png", (image > 100).astype(np.uint8))
    config, text = planned(tmp_path / "set")
    assert (config.data.ndim, config.train.patch_size, config.train.within) == (2, (40, 64), None)
    assert config.train.loss.batch_dice
    assert config.train.augment.mirror_axes is None
    assert config.data.preprocess.normalise == "zscore"
    assert "5 images of" in text
    assert config.data.fold == 0
    assert "Held out are 1 of 5 cases, of which a score says little" in text


def test_images_that_take_long_are_not_mirrored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_masks(tmp_path / "set", SQUARES)
    assert planned(folder, "1m")[0].evaluate.tta is True
    monkeypatch.setattr("flows.pipelines.segmentation.planning.effort.CPU_VOXELS_PER_SECOND", 10)
    assert planned(folder, "1m")[0].evaluate.tta is False
    assert planned(folder)[0].evaluate.tta is True, "no time was given"


def test_what_breaks_a_rule_is_left_out_and_said(tmp_path: Path) -> None:
    write_volumes(tmp_path / "set", [1.0, 1.0, 1.0], {"background": 0, "a": 1, "b": 2}, "MR")
    (tmp_path / "set" / "imagesTr" / "case_1_0000.nii.gz").write_bytes(b"no volume")
    config, text = planned(tmp_path / "set")
    assert config.data.on_error == "quarantine"
    assert "1 files break a rule" in text
    for path in (tmp_path / "set" / "imagesTr").glob("*"):
        path.write_bytes(b"no volume")
    with pytest.raises(DataError):
        planned_yaml(tmp_path / "set")


def test_ct_is_known_by_its_name() -> None:
    assert is_ct(" ct ")
    assert not is_ct("MRI")
    assert not is_ct("CT perfusion")


@pytest.mark.parametrize(("air", "normalise"), [(-1000, "intensities"), (-500, "zscore")])
def test_ct_without_a_name_is_known_by_its_air(tmp_path: Path, air: int, normalise: str) -> None:
    write_volumes(tmp_path / "named", [1.0, 1.0], {"background": 0, "a": 1, "b": 2}, "MR")
    folder = tmp_path / "set"
    for part, source in (("images", "imagesTr"), ("masks", "labelsTr")):
        (folder / part).mkdir(parents=True)
        for path in (tmp_path / "named" / source).iterdir():
            image = nibabel.load(path)
            values = np.array(image.dataobj, np.int16)
            values[:2] = air if part == "images" else 0
            write_nifti(folder / part / path.name.replace("_0000", ""), values, image.affine)
    (folder / "classes.json").write_text('{"background": 0, "a": 1, "b": 2}')
    config, text = planned(folder)
    assert config.data.preprocess.normalise == normalise
    assert ("Guessed: no channel has a name" in " ".join(text.split())) == (normalise == "intensities")


def test_ct_beside_another_modality(tmp_path: Path) -> None:
    write_volumes(tmp_path / "set", [1.0, 1.0, 1.0], {"background": 0, "a": 1, "b": 2}, "CT")
    described = json.loads((tmp_path / "set" / "dataset.json").read_text())
    described["channel_names"] = {"0": "CT", "1": "PET"}
    (tmp_path / "set" / "dataset.json").write_text(json.dumps(described))
    for index in range(3):
        first = tmp_path / "set" / "imagesTr" / f"case_{index}_0000.nii.gz"
        first.with_name(f"case_{index}_0001.nii.gz").write_bytes(first.read_bytes())
    config, text = planned(tmp_path / "set")
    assert config.data.preprocess.normalise == ("intensities", "zscore")
    assert len(config.data.preprocess.intensities or ()) == 2
    assert "The other channels have no absolute unit" in text


def test_a_tiny_class_is_weighed(tmp_path: Path) -> None:
    classes = {"background": 0, "a": 1, "b": 2, "speck": 3}
    write_volumes(tmp_path / "set", [1.0, 1.0, 1.0], classes, "MR")
    assert planned(tmp_path / "set")[0].train.class_weights is None, "no case shows it: nothing to weigh"
    for path in (tmp_path / "set" / "labelsTr").glob("*"):
        image = nibabel.load(path)
        label = np.array(image.dataobj, np.uint8)
        label[20:22, 20:22, 9] = 3
        write_nifti(path, label, image.affine)
    config, text = planned(tmp_path / "set")
    assert config.train.class_weights == "auto"
    assert "speck: less than 5 % of the voxels of a typical class" in text


def test_slices_beside_the_volume(tmp_path: Path) -> None:
    write_volumes(tmp_path / "x", [4.0, 4.0, 4.0], {"background": 0, "liver left": 1, "tumour": 2}, "MR")
    path = tmp_path / "plan.yaml"
    path.write_text(planned_yaml(tmp_path / "x", PlanOptions(candidates=True)))
    config = load_config(path)
    assert isinstance(config, SegmentationConfig)
    slices = config.candidate_configs["2d"].train
    assert slices.patch_size == (24, 24, 1), "slices lie across the axis of thick voxels"
    assert all(stride[2] == 1 for stride in slices.model.strides if isinstance(stride, tuple))
    assert slices.augment.mirror_axes == (1,), "neither right-left nor across slices"
    assert slices.augment.coarse_axis == 2
    assert (slices.loss.batch_dice, config.train.loss.batch_dice) == (True, False)
    assert slices.model.channels[0] == config.train.model.channels[0]


def test_large_volumes_without_a_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A minute holds neither windows of full resolution nor mirrored ones, and few cases per validation."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})
    monkeypatch.setattr("data_pipelines.cores.QUOTA", Path("none"))
    monkeypatch.setattr("flows.pipelines.segmentation.planning.effort.CPU_VOXELS_PER_SECOND", 50_000)
    write_volumes(tmp_path / "x", [2.0] * 6, {"background": 0, "a": 1, "b": 2}, "MR", (96, 80, 64))
    config, text = planned(tmp_path / "x", "1m")
    spacing = config.data.preprocess.spacing
    assert isinstance(spacing, tuple)
    assert min(spacing) > 2, "coarser than the 1 x 1 x 2 mm of the files"
    assert not config.evaluate.tta
    assert config.train.validate_cases == 1
    text = " ".join(text.replace("#", "").split())
    for part in (
        "A low resolution, for 1m without a GPU: at the full one, 1 x 1 x 2 mm, an image takes 2 CPUs",
        "Not chosen, full resolution",
        "Mirrored along 3 axes, 2 held-out cases would take",
        "As many as one validation predicts in 3 % of the time, at least one.",
    ):
        assert part in text
    assert planned(tmp_path / "x")[0].data.preprocess.spacing is None, "without a time it is not short"
    path = tmp_path / "plan.yaml"
    path.write_text(planned_yaml(tmp_path / "x", PlanOptions("1m", candidates=True)))
    compared = load_config(path)
    assert isinstance(compared, SegmentationConfig)
    full, slices = (compared.candidate_configs[name] for name in ("3d_fullres", "2d"))
    assert full.data.preprocess.spacing == slices.data.preprocess.spacing == (1.0, 1.0, 2.0)
    assert slices.train.patch_size[2] == 1, "across the axis that is coarse in the files"
    assert "Not planned, a cascade" in path.read_text()
    cascade, text = planned(tmp_path / "x", "1m", candidates=True, folds=True)
    assert "Not planned" not in text
    fine = cascade.candidate_configs["3d_cascade"]
    assert (cascade.data.fold, fine.previous) == ("all", "base")
    assert (fine.train, fine.data.preprocess) == (full.train, full.data.preprocess)


@pytest.mark.parametrize(
    ("options", "memory_gb"),
    [
        (PlanningOptions(600, 8.0), 0.6),
        (PlanningOptions(600, 0.5), 0.5),
        (PlanningOptions(4 * 3600, 8.0), 8.0),
        (PlanningOptions(5, 8.0), 0.06),
        (PlanningOptions(None, 8.0), 8.0),
        (PlanningOptions(600, 8.0, use_gpu=True), 8.0),
    ],
)
def test_without_a_gpu_a_short_training_has_smaller_patches(options: PlanningOptions, memory_gb: float) -> None:
    assert options.patch_memory_gb == pytest.approx(memory_gb)


def test_the_slowest_candidate_decides_what_holds_for_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a low resolution alone all cases can be mirrored in time; of the full one beside it they cannot."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})
    monkeypatch.setattr("data_pipelines.cores.QUOTA", Path("none"))
    monkeypatch.setattr("flows.pipelines.segmentation.planning.effort.CPU_VOXELS_PER_SECOND", 300_000)
    write_volumes(tmp_path / "x", [2.0] * 6, CLASSES, "MR", (96, 80, 64))
    options, surveyed = PlanningOptions(60, 8.0), survey(tmp_path / "x")
    found = plan_candidates(surveyed.images(), options.patch_memory_gb)
    (low,) = (each for each in found if each.name == "3d_lowres")
    ordered = [low, *(each for each in found if each is not low)]

    def decided(trained: list[Candidate]) -> dict[str, Any]:
        settings = plan_settings(surveyed, low, ordered[1:], options, trained)
        return {each.path: each.value for each in settings if each.path in ("evaluate.tta", "train.validate_cases")}

    assert decided([]) == decided([low]) == {}
    assert decided(ordered) == {"evaluate.tta": False, "train.validate_cases": 1}


def test_folds_decide_about_mirroring(tmp_path: Path) -> None:
    write_volumes(tmp_path / "x", [2.0, 2.0], CLASSES, "MR")
    config, text = planned(tmp_path / "x", folds=True)
    assert (config.data.fold, config.evaluate.tta) == ("all", "auto")
    assert "a network per fold" in text
    assert planned(tmp_path / "x", "30m", folds=True)[0].evaluate.tta == "auto"
    assert planned(tmp_path / "x")[0].evaluate.tta is True


def test_a_cascade_follows_the_low_resolution(tmp_path: Path) -> None:
    write_volumes(tmp_path / "x", [2.0] * 6, CLASSES, "MR", (96, 80, 64))
    config, _ = planned(tmp_path / "x", memory=0.06, candidates=True, folds=True)
    assert config.candidates["3d_cascade"] == {"previous": "3d_lowres"}


def test_a_gpu_that_is_found_is_planned_for(tmp_path: Path, gpu: list[bool]) -> None:
    write_volumes(tmp_path / "x", [2.0, 2.0], CLASSES, "MR")
    gpu.append(True)
    on_gpu, _ = planned(tmp_path / "x", "30m")
    assert on_gpu.compute.use_gpu
    assert on_gpu.train.model.channels[0] == 32
    (tmp_path / "plan.yaml").write_text(planned_yaml(tmp_path / "x", PlanOptions("30m", gpu=False)))
    assert load_config(tmp_path / "plan.yaml").train.model.channels[0] == 16  # type: ignore[attr-defined]  # segmentation


def test_a_folder_is_planned_then_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    for parent in ("a", "b"):
        write_volumes(tmp_path / parent / "x", [2.0, 2.0, 2.0], CLASSES, "MR")
        assert (
            run_command(["run", str(tmp_path / parent / "x"), "--within", "5m", "--memory", "0.5GB", "--dry-run"]) == 0
        )
    assert capfd.readouterr().out.split().count("shard") == 2
    plans = sorted((state_folder() / "plans").iterdir())
    assert len(plans) == 2, "two folders of one name do not share a plan"
    configs = [load_config(path) for path in plans]
    assert {config.data.root for config in configs} == {str(tmp_path / each / "x") for each in "ab"}  # type: ignore[attr-defined]  # segmentation
    assert run_command(["run", str(plans[0]), "--candidates", "--dry-run"]) == 2
    assert "--candidates, --network and --folds plan for a folder of cases" in capfd.readouterr().err


def test_a_residual_encoder_has_blocks_for_each_stage(tmp_path: Path) -> None:
    write_volumes(tmp_path / "x", [2.0, 2.0], CLASSES, "MR")
    config, _ = planned(tmp_path / "x", gpu=True, network="residual_encoder_l")
    model = config.train.model
    assert (model.block, model.decoder_block, model.num_decoder_blocks) == ("residual_encoder", "plain", 1)
    assert model.num_blocks == (1, 3, 4)[: len(model.channels)]
    with pytest.raises(ConfigError, match="there is no plan for mednext; choose nnunet, residual_encoder_m"):
        planned(tmp_path / "x", network="mednext")
