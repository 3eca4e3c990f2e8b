"""What the segmenter makes of its network: averaged over mirrored copies as the bundle says, never of NaN."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from data_pipelines.errors import WeightsError
from data_pipelines.volumes.formats.base import Geometry
from data_pipelines.volumes.preprocess import prepare
from data_pipelines.volumes.specs import InputSpec, PreprocessSpec
from data_pipelines.volumes.trained_range import TrainedRange
from flows.pipelines.segmentation.bundle import Bundle
from flows.pipelines.segmentation.config import SegmentationConfig
from flows.pipelines.segmentation.evaluate import build_bundle
from flows.pipelines.segmentation.segmenter import Segmenter
from flows.pipelines.segmentation.shard import VolumeShardFigures
from flows.registry.bundle import WEIGHTS, read_bundle, write_bundle
from tests.support.volumes import numbered
from unet_models.networks.build import build_network
from unet_models.specs.networks import UNetSpec
from unet_models.specs.segmentation import PredictSpec

MODEL = UNetSpec(channels=(4, 8), deep_supervision=0)
LABELS = numbered("background", "left", "right")
RAW = PreprocessSpec(normalise="none")


def segmenter(folder: Path, mirror_axes: tuple[int, ...]) -> Segmenter:
    bundle = Bundle(
        model=MODEL,
        labels=LABELS,
        channels=("image",),
        patch_size=(8, 8),
        preprocess=RAW,
        spacing=None,
        mirror_axes=mirror_axes,
        limits=InputSpec(),
        predict=PredictSpec(),
    )
    write_bundle(folder, bundle)
    torch.manual_seed(0)
    save_file(build_network(MODEL, 1, LABELS.num_outputs, ndim=2).state_dict(), folder / WEIGHTS)
    return Segmenter.from_folder(folder, device="cpu")


@pytest.mark.parametrize("axes", [(), (1,), (0, 1)])
def test_only_axes_that_training_mirrored_are_averaged_over(axes: tuple[int, ...], tmp_path: Path) -> None:
    model = segmenter(tmp_path, axes)
    image = torch.randn(1, 8, 8, generator=torch.Generator().manual_seed(1))
    flips = {(): [()], (1,): [(), (1,)], (0, 1): [(), (0,), (1,), (0, 1)]}[axes]
    with torch.inference_mode():
        copies = [model.model(image[None].flip([a + 2 for a in flip]))[0].flip([a + 1 for a in flip]) for flip in flips]
    got = torch.from_numpy(model.predict(model.model, image.numpy(), model.bundle.predict))
    torch.testing.assert_close(got, torch.stack(copies).mean(0), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("given", "expected"), [(None, (0, 1, 2)), ([], ()), ([1, 2], (1, 2))])
def test_the_bundle_says_which_axes_training_mirrored_and_what_it_saw(
    given: list[int] | None, expected: tuple[int, ...], tmp_path: Path
) -> None:
    seen = TrainedRange(spacing=((1, 2),) * 3, extent=((90, 110),) * 3, intensities=((0, 100),))
    config = SegmentationConfig.model_validate(
        {"data": {"root": "/data"}, "train": {"augment": {"mirror_axes": given}}}
    )
    figures = VolumeShardFigures(
        num_train=1, num_val=1, num_new=0, shards="s", shard_sizes={}, dataset="d", num_quarantined=0,
        spacing=None, labels=LABELS, channels=("image",), trained_range=seen,
    )  # fmt: skip
    write_bundle(tmp_path, build_bundle(config, figures))
    bundle = read_bundle(tmp_path, Bundle)
    assert (bundle.mirror_axes, bundle.trained_range) == (expected, seen)


def test_a_limit_on_the_memory_changes_no_label(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Strips of an anisotropic image of odd size, resampled both ways."""
    model = segmenter(tmp_path, (0, 1))
    model.bundle = model.bundle.model_copy(update={"spacing": (0.9, 1.4)})
    image = torch.randn(1, 37, 61, generator=torch.Generator().manual_seed(1)).numpy()
    geometry = Geometry((37, 61), (1.3, 0.8))
    whole = model.segment(image, geometry)
    assert not caplog.text
    limited = model.within(1e-6)
    assert limited._plan(np.zeros((1, 53, 35)), prepare(image, geometry, RAW, (0.9, 1.4)).done).num_strips > 1
    np.testing.assert_array_equal(limited.segment(image, geometry), whole)
    assert len(np.unique(whole)) > 1
    assert "3 outputs on a grid of 53x35 need about 0.7 GB, more than the limit of 1e-06 GB" in caplog.text
    assert model.bundle.predict.memory_gb == 4


def test_an_output_that_is_not_finite_is_no_label_map(tmp_path: Path) -> None:
    model = segmenter(tmp_path, ())
    next(model.model.parameters()).data.fill_(float("nan"))
    with pytest.raises(WeightsError, match="output is not finite in precision fp32"):
        model.segment(torch.arange(64.0).reshape(1, 8, 8).numpy())
