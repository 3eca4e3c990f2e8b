"""Maps beside a label map: probabilities, uncertainty and disagreement, where the image lies."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from scipy.stats import entropy

from data_pipelines.volumes.classes import Labels, Region
from data_pipelines.volumes.formats.nifti import write_nifti
from data_pipelines.volumes.specs import PreprocessSpec
from flows.pipelines.segmentation.bundle import Bundle
from flows.pipelines.segmentation.maps import STEPS, MapName, find_maps, map_path
from flows.pipelines.segmentation.reading import read_array, read_files
from flows.pipelines.segmentation.segmenter import Segmenter
from flows.registry.bundle import WEIGHTS, write_bundle
from tests.support.volumes import numbered
from unet_models.networks.build import build_network
from unet_models.sampling.sweep import Sweep, plan_sweep
from unet_models.specs.networks import UNetSpec
from unet_models.specs.segmentation import PredictSpec

MODEL = UNetSpec(channels=(4, 8), deep_supervision=0)
LABELS = numbered("background", "left", "right")
REGIONS = (Region(name="whole", classes=(1, 2), written=1), Region(name="core", classes=(2,), written=2))
TEMPERATURES = (1.5, 0.7, 2.0)
EVERY: tuple[MapName, ...] = ("probabilities", "uncertainty", "disagreement")
IMAGE = np.random.default_rng(0).normal(100, 10, (12, 10, 8)).astype(np.float32)


def segmenter(folder: Path, ndim: int = 2, labels: Labels = LABELS, same: bool = False, **changes: Any) -> Segmenter:
    """A network of random weights, or several; its logits are scaled up: untrained ones are near 0."""
    bundle = Bundle(
        model=MODEL, labels=labels, channels=("image",), patch_size=(16,) * ndim, spacing=None, mirror_axes=(),
        preprocess=PreprocessSpec(), predict=PredictSpec(), temperatures=TEMPERATURES,
    ).model_copy(update=changes)  # fmt: skip
    write_bundle(folder, bundle)
    weights: dict[str, torch.Tensor] = {}
    for place in range(bundle.num_members):
        torch.manual_seed(0 if same else place)
        prefix = f"members.{place}." if bundle.num_members > 1 else ""
        own = build_network(MODEL, 1, labels.num_outputs, ndim).state_dict()
        weights |= {prefix + name: 4 * value if "head" in name else value for name, value in own.items()}
    save_file(weights, folder / WEIGHTS)
    return Segmenter.from_folder(folder, device="cpu")


def softmax(logits: np.ndarray, temperatures: Sequence[float] = TEMPERATURES) -> np.ndarray:
    """Divide log-probabilities (K, ...) by the temperatures, and normalise again."""
    inverse = 1 / np.array(temperatures).reshape(-1, *(1,) * (logits.ndim - 1))
    powers = (np.exp(logits) / np.exp(logits).sum(0)) ** inverse
    return np.asarray(powers / powers.sum(0))


def test_probabilities_are_calibrated_and_labels_are_the_networks_own(tmp_path: Path) -> None:
    model, image = segmenter(tmp_path), IMAGE[..., 0]
    ready = read_array(model.bundle, image)
    logits = model.predict(model.model, ready.prepared.image, model.bundle.predict)
    found = model.segment_with_maps(ready, ("probabilities", "uncertainty"))
    np.testing.assert_allclose(np.moveaxis(found["probabilities"], -1, 0), softmax(logits), atol=0.6 / STEPS)
    expected = entropy(softmax(logits), axis=0) / math.log(3)
    np.testing.assert_allclose(found["uncertainty"], expected, atol=0.6 / STEPS)
    np.testing.assert_array_equal(found["labels"], logits.argmax(0))
    assert (found["probabilities"].argmax(-1) != found["labels"]).any()  # what calibration would have changed
    assert found["probabilities"].dtype == np.float32
    assert len(np.unique(found["labels"])) > 1


def test_regions_have_probabilities_each(tmp_path: Path) -> None:
    labels = LABELS.model_copy(update={"regions": REGIONS})
    model = segmenter(tmp_path, labels=labels, temperatures=(2.0, 1.0))
    ready = read_array(model.bundle, IMAGE[..., 0])
    logits = model.predict(model.model, ready.prepared.image, model.bundle.predict)
    found = model.segment_with_maps(ready, ("probabilities", "uncertainty"))
    whole, core = 1 / (1 + np.exp(-logits[0] / 2)), 1 / (1 + np.exp(-logits[1]))
    np.testing.assert_allclose(found["probabilities"], np.stack([whole, core], -1), atol=0.6 / STEPS)
    expected = (entropy([whole, 1 - whole]) + entropy([core, 1 - core])) / 2 / math.log(2)
    np.testing.assert_allclose(found["uncertainty"], expected, atol=0.6 / STEPS)


def test_disagreement_is_the_mutual_information_of_the_members(tmp_path: Path) -> None:
    model = segmenter(tmp_path, num_members=2)
    ready = read_array(model.bundle, IMAGE[..., 0])
    members = [model.predict(each, ready.prepared.image, model.bundle.predict) for each in model.model.members]
    own = [softmax(logits) for logits in members]
    expected = (entropy(np.mean(own, axis=0), axis=0) - np.mean([entropy(each, axis=0) for each in own], 0)) / math.log(
        3
    )
    found = model.segment_with_maps(ready, EVERY)
    np.testing.assert_allclose(found["disagreement"], expected, atol=1 / STEPS)
    assert found["disagreement"].max() > 0.01
    mean = np.mean([softmax(logits, (1, 1, 1)) for logits in members], axis=0)
    np.testing.assert_allclose(np.moveaxis(found["probabilities"], -1, 0), softmax(np.log(mean)), atol=0.6 / STEPS)
    np.testing.assert_array_equal(found["labels"], model.segment(IMAGE[..., 0]))
    same = segmenter(tmp_path, num_members=2, same=True)
    assert same.segment_with_maps(ready, EVERY)["disagreement"].max() == 0


def test_memory_is_planned_for_the_logits_of_all_members(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Disagreement needs those of all at once; labels are averaged one by one."""
    copies: list[int] = []

    def watched(*given: Any) -> Sweep:
        copies.append(given[-1])
        return plan_sweep(*given)

    monkeypatch.setattr("flows.pipelines.segmentation.segmenter.plan_sweep", watched)
    for num_members in (1, 3):
        model = segmenter(tmp_path, num_members=num_members)
        model.segment(IMAGE[..., 0])
    model.segment_with_maps(read_array(model.bundle, IMAGE[..., 0]), EVERY)
    assert copies == [1, 7, 12]


def test_maps_lie_where_the_image_lies(tmp_path: Path) -> None:
    """Axes in another order, one reversed; cropped, and resampled both ways."""
    changes = {"spacing": (1.5, 2.5, 3.0), "preprocess": PreprocessSpec(foreground_crop=True), "num_members": 2}
    model = segmenter(tmp_path, 3, temperatures=(), **changes)
    affine = np.array([[0.0, -2, 0, 5], [3, 0, 0, 6], [0, 0, 4, 7], [0, 0, 0, 1]])
    image = IMAGE.copy()
    image[:3] = image[:, 8:] = image.min()
    write_nifti(tmp_path / "a.nii.gz", image, affine, 0.001)
    output = str(tmp_path / "out" / "a.nii.gz")
    model.segment_to_file([str(tmp_path / "a.nii.gz")], output, names=EVERY)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "a.disagreement.nii.gz", "a.nii.gz", "a.probabilities.nii.gz", "a.uncertainty.nii.gz",
    ]  # fmt: skip
    labels = nib.load(output)
    maps = {name: nib.load(map_path(output, name)) for name in EVERY}
    for file in maps.values():
        np.testing.assert_allclose(file.affine, labels.affine)
        assert file.header.get_xyzt_units() == labels.header.get_xyzt_units()
        assert file.get_data_dtype() == np.float32
    probabilities = np.asarray(maps["probabilities"].dataobj)
    assert probabilities.shape == (*IMAGE.shape, 3)
    np.testing.assert_allclose(probabilities.sum(-1), 1, atol=2 / STEPS)
    np.testing.assert_array_equal(probabilities.argmax(-1), np.asarray(labels.dataobj))
    assert (probabilities[:3, ..., 0] == 1).all()
    expected = entropy(probabilities, axis=-1) / math.log(3)
    np.testing.assert_allclose(np.asarray(maps["uncertainty"].dataobj), expected, atol=1e-3)
    found = model.segment_with_maps(read_files(model.bundle, [str(tmp_path / "a.nii.gz")]), EVERY)
    for name in EVERY:
        np.testing.assert_array_equal(found[name], np.asarray(maps[name].dataobj))


def test_a_limit_on_the_memory_changes_no_map(tmp_path: Path) -> None:
    model = segmenter(tmp_path, spacing=(0.9, 1.4))
    image = np.random.default_rng(1).normal(size=(37, 61)).astype(np.float32)
    ready = read_array(model.bundle, image)
    limited = model.within(1e-6)
    assert limited._plan(ready.prepared.image, ready.prepared.done).num_strips > 1
    names: tuple[MapName, ...] = ("probabilities", "uncertainty")
    whole, strips = model.segment_with_maps(ready, names), limited.segment_with_maps(ready, names)
    for name in names:
        np.testing.assert_allclose(strips[name], whole[name], atol=1.01 / STEPS)


@pytest.mark.parametrize("shape", [(12, 10), (12, 10, 1)])
def test_maps_of_images_of_two_axes(tmp_path: Path, shape: tuple[int, ...]) -> None:
    model = segmenter(tmp_path)
    write_nifti(tmp_path / "a.nii", IMAGE[..., 0].reshape(shape), np.eye(4))
    output = tmp_path / "out.nii"
    model.segment_to_file([str(tmp_path / "a.nii")], str(output), names=("probabilities", "uncertainty"))
    assert nib.load(map_path(output, "probabilities")).shape == (12, 10, 1, 3)
    assert nib.load(map_path(output, "uncertainty")).shape == shape
    found = model.segment_with_maps(read_files(model.bundle, [str(tmp_path / "a.nii")]), ("probabilities",))
    assert found["probabilities"].shape == (*shape, 3)
    assert found["labels"].shape == shape
    np.testing.assert_array_equal(
        np.asarray(nib.load(map_path(output, "probabilities")).dataobj).squeeze(), found["probabilities"].squeeze()
    )
    Image.fromarray(IMAGE[..., 0].astype(np.uint8)).save(tmp_path / "b.png")
    model.segment_to_file([str(tmp_path / "b.png")], str(tmp_path / "c.png"), names=("probabilities", "uncertainty"))
    probabilities = np.load(tmp_path / "c.probabilities.npy")
    assert probabilities.shape == (12, 10, 3)
    assert np.load(tmp_path / "c.uncertainty.npy").shape == (12, 10)
    np.testing.assert_allclose(probabilities.sum(-1), 1, atol=2 / STEPS)


def test_maps_have_the_axes_of_their_label_map(tmp_path: Path) -> None:
    """A picture is (row, column), a slice of NIfTI (x, y): each may be written as the other."""
    names: tuple[MapName, ...] = ("probabilities", "uncertainty")
    model = segmenter(tmp_path, temperatures=())
    image = IMAGE[..., 0][:, :7]
    Image.fromarray(image.astype(np.uint8)).save(tmp_path / "a.png")
    write_nifti(tmp_path / "b.nii", image, np.eye(4))
    for source, target in (("a.png", "a.nii"), ("b.nii", "b.png")):
        output = tmp_path / target
        model.segment_to_file([str(tmp_path / source)], str(output), names=names)
        files = [output, *(map_path(output, name) for name in names)]
        labels, probabilities, uncertainty = (
            np.load(path) if path.suffix == ".npy" else read_array_of(path) for path in files
        )
        assert labels.shape == (image.shape[::-1])
        assert len(np.unique(labels)) > 1
        np.testing.assert_array_equal(probabilities.squeeze().argmax(-1), labels)
        assert uncertainty.shape == labels.shape


def read_array_of(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path) if path.suffix == ".png" else nib.load(path).dataobj)


def test_maps_that_are_asked_for() -> None:
    assert find_maps(1) == ()
    assert find_maps(1, uncertainty=True) == ("uncertainty",)
    assert find_maps(5, probabilities=True, uncertainty=True) == EVERY
    assert [map_path(name, "uncertainty").name for name in ("a.b.nii.gz", "a.nii", "a.PNG")] == [
        "a.b.uncertainty.nii.gz", "a.uncertainty.nii", "a.uncertainty.npy",
    ]  # fmt: skip


def test_maps_of_formats_with_a_place_are_nifti() -> None:
    names = ("a.b.nii", "a.NRRD", "a.mha", "a.dcm", "a.tif", "a.png")
    assert [map_path(f"out/{name}", "uncertainty").name for name in names] == [
        "a.b.uncertainty.nii",
        *["a.uncertainty.nii.gz"] * 3,
        *["a.uncertainty.npy"] * 2,
    ]
