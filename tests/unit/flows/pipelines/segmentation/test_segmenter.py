"""Prediction refuses what training refuses, by the same rule, and writes label maps where the image lies."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import SimpleITK
import tifffile
import torch
from PIL import Image
from torch import Tensor, nn

from data_pipelines.errors import DataError, InputError
from data_pipelines.volumes.checks import CheckedImage, check_image
from data_pipelines.volumes.classes import Labels
from data_pipelines.volumes.dicom_labels import read_dicom_label
from data_pipelines.volumes.files import read_volume
from data_pipelines.volumes.modalities import Modalities
from data_pipelines.volumes.specs import InputSpec, PreprocessSpec
from data_pipelines.volumes.trained_range import TrainedRange
from flows.pipelines.segmentation import reading
from flows.pipelines.segmentation.bundle import Bundle
from flows.pipelines.segmentation.segmenter import Segmenter
from tests.support.dicom import write_ct
from tests.support.volumes import numbered
from unet_models.specs.networks import FusionSpec, UNetSpec
from unet_models.specs.segmentation import PredictSpec

IMAGE = np.random.default_rng(0).normal(100, 10, (8, 8, 8)).astype(np.float32)
AFFINE = np.diag([1.0, 1.0, 2.0, 1.0])
ORGAN = numbered("background", "organ")


class Bright(nn.Module):
    """Bright voxels are class 1: their intensity is its logit."""

    def forward(self, images: Tensor, *given: Tensor | None) -> Tensor:
        return torch.cat([torch.zeros_like(images[:, :1]), images[:, :1]], dim=1)


class Threshold(Segmenter):
    """A segmenter whose network is a threshold."""

    def __init__(
        self, ndim: int = 3, channels: Sequence[str] = ("MR",), labels: Labels = ORGAN, **limits: float
    ) -> None:
        self.bundle = Bundle(
            model=UNetSpec(),
            labels=labels,
            channels=tuple(channels),
            patch_size=(8,) * ndim,
            preprocess=PreprocessSpec(),
            spacing=None,
            mirror_axes=(),
            predict=PredictSpec(),
            limits=InputSpec(**limits),
        )
        self.device = torch.device("cpu")
        self.predictor = Bright()


def write(path: Path, array: np.ndarray, affine: np.ndarray = AFFINE, unit: str = "mm") -> str:
    image = nib.Nifti1Image(array, affine)
    image.header.set_xyzt_units(unit)
    nib.save(image, path)
    return str(path)


def rules_of(segmenter: Segmenter, *paths: str) -> list[tuple[str, str]]:
    with pytest.raises(DataError) as caught:
        segmenter.segment_files(paths)
    assert "quarantine" not in str(caught.value)  # a setting of training
    return [(problem.rule, Path(problem.path).name) for problem in caught.value.problems]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e300])
def test_values_that_are_no_numbers_are_refused(tmp_path: Path, value: float) -> None:
    image = IMAGE.astype(np.float64)
    image[0, 1, 1] = value  # 1e300 is infinite as float32
    assert rules_of(Threshold(), write(tmp_path / "a.nii.gz", image)) == [("non-finite", "a.nii.gz")]
    assert rules_of(Threshold(), write(tmp_path / "b.nii.gz", np.zeros_like(IMAGE))) == [("constant-image", "b.nii.gz")]


def test_the_file_is_named_that_overflows_in_preprocessing(tmp_path: Path) -> None:
    segmenter = Threshold()
    known = {"low": -3e38, "high": 3e38, "mean": 0, "std": 0.1}
    preprocess = PreprocessSpec.model_validate({"normalise": "intensities", "intensities": [known]})
    segmenter.bundle = segmenter.bundle.model_copy(update={"preprocess": preprocess})
    image = np.where(IMAGE > 100, np.float32(3e38), np.float32(1))
    with np.errstate(over="ignore"):
        assert rules_of(segmenter, write(tmp_path / "a.nii.gz", image)) == [("non-finite", "a.nii.gz")]


def test_label_maps_have_the_values_of_label_files(tmp_path: Path) -> None:
    segmenter = Threshold(labels=Labels(names=("background", "organ"), values=((3, 0), (700, 1))))
    path, bright = write(tmp_path / "a.nii.gz", IMAGE), np.where(IMAGE.mean() < IMAGE, 700, 3)
    np.testing.assert_array_equal(segmenter.segment(IMAGE), bright)
    np.testing.assert_array_equal(segmenter.label_files([path]), bright)
    np.testing.assert_array_equal(segmenter.segment_files([path])[0], bright == 700)  # numbers of classes
    written = nib.load(segmenter.segment_to_file([path], str(tmp_path / "out.nii.gz")))
    np.testing.assert_array_equal(np.asarray(written.dataobj), bright)


def test_colours_are_written_as_colours_and_in_nifti_as_numbers(tmp_path: Path) -> None:
    colours = Labels(names=("background", "road"), values=((0x000080,), (0xFF00FF,)), is_colour=True)
    segmenter, picture = Threshold(ndim=2, labels=colours), np.arange(64, dtype=np.uint8).reshape(8, 8)
    Image.fromarray(picture).save(tmp_path / "a.png")
    expected = np.where((picture > 31)[..., None], [255, 0, 255], [0, 0, 128])
    np.testing.assert_array_equal(segmenter.label_files([str(tmp_path / "a.png")]), expected)
    out = segmenter.segment_to_file([str(tmp_path / "a.png")], str(tmp_path / "out.png"))
    np.testing.assert_array_equal(np.asarray(Image.open(out)), expected)
    out = segmenter.segment_to_file([str(tmp_path / "a.png")], str(tmp_path / "out.nii.gz"))
    np.testing.assert_array_equal(np.asarray(nib.load(out).dataobj), picture.T > 31, "(x, y)")
    out = segmenter.segment_to_file([str(tmp_path / "a.png")], str(tmp_path / "out.tif"))
    np.testing.assert_array_equal(np.asarray(Image.open(out)), expected)


def test_a_series_becomes_a_dicom_segmentation(tmp_path: Path) -> None:
    voxels = np.arange(9 * 7 * 5, dtype=np.uint16).reshape(9, 7, 5)
    series = write_ct(tmp_path / "image", voxels)
    written = Threshold().segment_to_file([str(series)], str(tmp_path / "out" / "a.dcm"))
    grid = read_volume(series, voxels.size).geometry
    found, _ = read_dicom_label(Path(written), grid, ORGAN, 0.01)
    np.testing.assert_array_equal(found, voxels > voxels.mean())


def test_values_that_png_does_not_have_are_refused(tmp_path: Path) -> None:
    segmenter = Threshold(ndim=2, labels=Labels(names=("background", "organ"), values=((0,), (-1,))))
    Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8)).save(tmp_path / "a.png")
    with pytest.raises(InputError, match=r"write the labels as \.nii\.gz"):
        segmenter.segment_to_file([str(tmp_path / "a.png")], str(tmp_path / "out.png"))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_arrays_are_checked_as_files_are(value: float) -> None:
    image = IMAGE.copy()
    image[0, 1, 1] = value
    with pytest.raises(DataError, match="non-finite"):
        Threshold().segment(image)
    with pytest.raises(DataError, match="constant-image"):
        Threshold().segment(np.ones_like(IMAGE))
    with pytest.raises(InputError, match="expected"):
        Threshold().segment(IMAGE[0])
    np.testing.assert_array_equal(Threshold().segment(IMAGE), IMAGE.mean() < IMAGE)


def test_channels_on_other_grids_are_refused(tmp_path: Path) -> None:
    two = Threshold(channels=("T1", "T2"))
    first = write(tmp_path / "first.nii", IMAGE)
    flipped, shifted = AFFINE.copy(), AFFINE.copy()
    flipped[0, 0], flipped[0, 3], shifted[0, 3] = -1, 7, 20
    wrong = {
        "flipped.nii": (IMAGE[::-1], flipped),
        "shifted.nii": (IMAGE, shifted),
        "shape.nii": (IMAGE[:, :, :6], AFFINE),
    }
    for name, (array, affine) in wrong.items():
        assert rules_of(two, first, write(tmp_path / name, array, affine)) == [("geometry-mismatch", name)]
    assert rules_of(two, first) == [("channel-count", "first.nii")]
    assert rules_of(Threshold(), first, first) == [("channel-count", "first.nii")]
    labels, _ = two.segment_files([first, write(tmp_path / "good.nii", -IMAGE)])
    assert labels.shape == IMAGE.shape


def test_an_axis_of_channels_must_be_the_models(tmp_path: Path) -> None:
    path = write(tmp_path / "a.nii", np.stack([IMAGE, IMAGE], axis=-1))
    assert rules_of(Threshold(), path) == [("wrong-ndim", "a.nii")]
    assert Threshold(channels=("T1", "T2")).segment_files([path])[0].shape == (8, 8, 8)
    assert Threshold().segment_files([write(tmp_path / "b.nii", IMAGE[..., None])])[0].shape == (8, 8, 8)


def test_the_limits_are_those_of_training(tmp_path: Path) -> None:
    path = write(tmp_path / "a.nii", IMAGE)
    assert rules_of(Threshold(max_voxels=511), path) == [("too-large", "a.nii")]
    assert Threshold(max_voxels=512).segment_files([path])[0].shape == (8, 8, 8)


@pytest.mark.parametrize("unit", ["mm", "micron", "meter"])
def test_label_maps_lie_where_the_image_lies_in_its_unit(tmp_path: Path, unit: str) -> None:
    affine = np.array([[0.0, -2, 0, 5], [3, 0, 0, 6], [0, 0, 4, 7], [0, 0, 0, 1]])
    output = Threshold().segment_to_file([write(tmp_path / "a.nii", IMAGE, affine, unit)], str(tmp_path / "b.nii.gz"))
    written = nib.load(output)
    np.testing.assert_allclose(written.affine, affine, atol=1e-6)
    assert written.header.get_xyzt_units()[0] == unit
    np.testing.assert_array_equal(np.asarray(written.dataobj), IMAGE.mean() < IMAGE)


@pytest.mark.parametrize("shape", [(8, 8), (8, 8, 1)])
def test_images_of_two_axes_keep_shape_and_place(tmp_path: Path, shape: tuple[int, ...]) -> None:
    affine = np.array([[0.5, 0, 0, 5], [0, -0.25, 0, 6], [0, 0, 1, 7], [0, 0, 0, 1]])
    path = write(tmp_path / "a.nii", IMAGE[..., 0].reshape(shape), affine)
    written = nib.load(Threshold(2).segment_to_file([path], str(tmp_path / "b.nii")))
    assert written.shape == shape
    np.testing.assert_allclose(written.affine, affine, atol=1e-6)
    picture = Image.open(Threshold(2).segment_to_file([path], str(tmp_path / "b.png")))
    np.testing.assert_array_equal(np.asarray(picture).T, IMAGE[..., 0] > IMAGE[..., 0].mean())


def test_other_formats_are_predicted_alike(tmp_path: Path) -> None:
    image = SimpleITK.GetImageFromArray(IMAGE.T)
    image.SetSpacing((1, 2, 3))
    for name in ("a.nrrd", "a.mha", "a.nii"):
        SimpleITK.WriteImage(image, str(tmp_path / name))
    tifffile.imwrite(tmp_path / "a.tif", IMAGE.T, photometric="minisblack")
    expected, place = Threshold().segment_files([str(tmp_path / "a.nii")])
    for name in ("a.nrrd", "a.mha"):
        labels, geometry = Threshold().segment_files([str(tmp_path / name)])
        np.testing.assert_array_equal(labels, expected)
        np.testing.assert_allclose(geometry.affine_array(), place.affine_array(), atol=1e-6)
    np.testing.assert_array_equal(Threshold().segment_files([str(tmp_path / "a.tif")])[0], expected)


def test_what_was_assumed_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    Threshold().segment_files([write(tmp_path / "a.nii", IMAGE, unit="unknown")])
    assert "unit-unstated (1)" in caplog.text


def test_the_next_image_is_read_while_the_network_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first prediction waits for the second image to be read, and two networks never work at once."""
    second_read, at_work = threading.Event(), threading.Semaphore()

    class Waiting(Bright):
        def forward(self, images: Tensor, *given: Tensor | None) -> Tensor:
            assert at_work.acquire(blocking=False)
            assert second_read.wait(20)
            at_work.release()
            return super().forward(images)

    def check(paths: Sequence[str], *rules: Any) -> CheckedImage:
        if paths[0].endswith("b.nii"):
            second_read.set()
        return check_image(paths, *rules)

    monkeypatch.setattr(reading, "check_image", check)
    segmenter = Threshold()
    segmenter.predictor = Waiting()
    paths = [write(tmp_path / name, sign * IMAGE) for name, sign in (("a.nii", 1), ("b.nii", -1))]
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(lambda path: segmenter.segment_files([path])[0], paths)
    np.testing.assert_array_equal(first, IMAGE.mean() < IMAGE)
    np.testing.assert_array_equal(second, IMAGE.mean() > IMAGE)


def test_a_text_that_is_not_given_is_told(caplog: pytest.LogCaptureFixture) -> None:
    segmenter = Threshold(ndim=2)
    image = np.random.default_rng(0).normal(size=(8, 8)).astype(np.float32)
    segmenter.segment(image)
    assert "segmented without" not in caplog.text
    reading = UNetSpec(fusion=FusionSpec(sound_seconds=0))
    segmenter.bundle = segmenter.bundle.model_copy(update={"model": reading})
    segmenter.segment(image, given=Modalities("the disc"))
    assert "segmented without" not in caplog.text
    segmenter.segment(image)
    assert "segmented without text, which this model reads" in caplog.text


def test_arrays_have_the_voxels_of_the_training_cases_where_nothing_is_resampled() -> None:
    segmenter = Threshold()
    extent = ((8, 8), (8, 8), (16, 16))
    trained = TrainedRange(spacing=((1, 1), (2, 2), (1, 4)), extent=extent, intensities=((0, 1),))
    bundle = segmenter.bundle.model_copy(update={"trained_range": trained, "spacing": None})
    assert reading.read_array(bundle, IMAGE).geometry.spacing == pytest.approx((1, 2, 2))
    resampling = bundle.model_copy(update={"spacing": (3.0, None, None)})
    assert reading.read_array(resampling, IMAGE).geometry.spacing == pytest.approx((3, 2, 2))


def test_inputs_beyond_the_training_data_are_said_to_be(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    segmenter = Threshold()
    extent = ((8, 8), (8, 8), (16, 16))
    trained = TrainedRange(spacing=((1, 1), (1, 1), (1, 1.5)), extent=extent, intensities=((0, 1),))
    segmenter.bundle = segmenter.bundle.model_copy(update={"trained_range": trained})
    segmenter.segment_files([write(tmp_path / "a.nii.gz", IMAGE)])
    assert "outside-training-range (1)" in caplog.text
    assert "a.nii.gz: voxels of 2 mm along z, trained on 1 to 1.5 mm" in caplog.text
