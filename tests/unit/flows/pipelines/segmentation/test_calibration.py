"""Voxels from which calibration is fitted: as many of each class, each weighing what it stands for."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from data_pipelines.volumes.classes import Labels, Region
from data_pipelines.volumes.formats.base import Geometry
from data_pipelines.volumes.preprocess import Preprocessing, crop_stored, prepare
from data_pipelines.volumes.restore import restore_labels
from data_pipelines.volumes.specs import PreprocessSpec
from flows.pipelines.segmentation.calibration import (
    MAX_VOXELS,
    VoxelSampler,
    calibrate,
    join_voxels,
    read_voxels,
    select_voxels,
    voxels_per_stratum,
)
from tests.support.reports import segmentation_report
from tests.support.volumes import numbered
from unet_models.metrics.calibration import Voxels

LABELS = numbered("background", "organ", "lesion")
SHAPE = (11, 9, 7)
TRUTH = np.random.default_rng(0).choice(4, SHAPE, p=[0.8, 0.1, 0.05, 0.05]).astype(np.uint8)  # 3: ignored


def case(labels: Labels = LABELS) -> tuple[torch.Tensor, Preprocessing]:
    """Logits of a case that is stored with its axes in another order, one reversed, and cropped."""
    affine = ((0.0, 1.0, 0.0, 0.0), (-1.0, 0.0, 0.0, 0.0), (0.0, 0.0, 1.0, 0.0), (0.0, 0.0, 0.0, 1.0))
    image = np.ones((1, *SHAPE), np.float32)
    image[:, 2:-1, 1:] = np.random.default_rng(1).normal(5, 1, (1, 8, 8, 7))
    done = prepare(image, Geometry(SHAPE, (1, 1, 1), affine), PreprocessSpec(foreground_crop=True), None).done
    logits = 3 * torch.randn(labels.num_outputs, *done.shape, generator=torch.Generator().manual_seed(2))
    return logits, done


def draw_bytes(size: int, labels: Labels = LABELS, axis: int = 0, row: int = 5) -> bytes:
    logits, done = case(labels)
    sampler = VoxelSampler(TRUTH, done, labels, size, row)
    restore_labels(lambda box: logits[(slice(None), *box)].unbind(1 + axis), done, labels, axis, 2, sampler)
    return sampler.finish()


def draw(size: int, labels: Labels = LABELS, axis: int = 0, row: int = 5) -> Voxels:
    return read_voxels([draw_bytes(size, labels, axis, row)])


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_large_samples_hold_every_annotated_voxel(axis: int) -> None:
    voxels, (logits, done) = draw(10_000, axis=axis), case()
    truth = crop_stored(TRUTH[None], done)[0]
    known = torch.from_numpy(truth != 3)
    expected = torch.cat([logits[:, known], torch.from_numpy(truth[truth != 3])[None].float()]).T
    got = torch.cat([voxels.logits, voxels.truth.float().argmax(1, keepdim=True)], dim=1)
    torch.testing.assert_close(got[got[:, 0].argsort()], expected[expected[:, 0].argsort()])
    assert voxels.weights.tolist() == [1.0] * len(got)


def test_small_samples_hold_as_many_of_each_class_sure_and_unsure() -> None:
    voxels, every = draw(4), draw(10_000)
    for number in range(3):
        for unsure in (False, True):
            parts = []
            for each in (voxels, every):
                is_unsure = (each.logits.softmax(1) * each.truth).sum(1) < 0.95
                parts.append(each.weights[each.truth[:, number] & (is_unsure == unsure)])
            assert len(parts[0]) == min(4, len(parts[1]))
            assert float(parts[0].sum()) == pytest.approx(len(parts[1]))
    assert len(draw(4).weights) == len(voxels.weights) < len(every.weights)
    torch.testing.assert_close(draw(4).logits, voxels.logits)


def test_samples_are_drawn_uniformly_from_the_voxels_of_a_class() -> None:
    """Over many samples, the mean of a quarter of the voxels is that of all: no plane is preferred."""

    def mean(voxels: Voxels) -> float:
        return float(np.average(voxels.logits.softmax(1)[:, 0], weights=voxels.weights))

    means = [mean(draw(20, row=row)) for row in range(60)]
    assert np.mean(means) == pytest.approx(mean(draw(10_000)), abs=4 * np.std(means) / len(means) ** 0.5)


def test_voxels_of_regions_belong_to_several() -> None:
    regions = (Region(name="whole", classes=(1, 2), written=1), Region(name="core", classes=(2,), written=2))
    voxels = draw(10_000, LABELS.model_copy(update={"regions": regions}))
    _, done = case()
    counts = np.bincount(crop_stored(TRUTH[None], done)[0].ravel())
    assert voxels.truth.sum(0).tolist() == [counts[1] + counts[2], counts[2]]
    calibration = calibrate(voxels, LABELS.model_copy(update={"regions": regions}))
    assert calibration is not None
    assert len(calibration.temperatures) == 2
    assert set(calibration.metrics) >= {"calibration_error", "calibration_error/whole", "uncalibrated_error/core"}


def test_the_sample_is_bounded() -> None:
    for cases in (1, 52, 100_000):
        assert 1 <= voxels_per_stratum(cases, 3) <= max(MAX_VOXELS / (6 * cases), 1)


def test_voxels_of_one_case_are_taken_out_of_several() -> None:
    joined = join_voxels([draw_bytes(4, row=row) for row in (2, 5, 7)])
    alone = draw(4, row=5)
    assert len(read_voxels([joined]).weights) == 3 * len(alone.weights)
    torch.testing.assert_close(read_voxels([select_voxels(joined, {5})]).logits, alone.logits)
    assert len(read_voxels([select_voxels(joined, set())]).weights) == 0


def test_the_report_shows_temperatures_and_diagrams() -> None:
    voxels = draw(10_000)
    calibration = calibrate(voxels, LABELS)
    assert calibration is not None
    assert calibration.likelihoods[1] < calibration.likelihoods[0]
    assert calibration.metrics["calibration_error"] < calibration.metrics["uncalibrated_error"]
    page = segmentation_report(calibration=calibration)
    assert "Calibration" in page
    assert all(f"{each:.3g}" in page for each in calibration.temperatures)
    assert page.count("after: probability 0.") > 10
    assert calibrate(Voxels(voxels.logits[:0], voxels.truth[:0], voxels.weights[:0]), LABELS) is None
