"""Two models that prepare images differently, as one: the mean of their probabilities where the image lies."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from scipy.stats import entropy

from data_pipelines.volumes.classes import Labels, Region
from data_pipelines.volumes.specs import PreprocessSpec
from flows.pipelines.segmentation.averaging import join_weights, split_weights
from flows.pipelines.segmentation.bundle import Bundle
from flows.pipelines.segmentation.explain import SegmentationExplainer
from flows.pipelines.segmentation.maps import STEPS
from flows.pipelines.segmentation.reading import read_files
from flows.pipelines.segmentation.segmenter import Segmenter
from flows.registry.bundle import WEIGHTS, read_bundle, write_bundle
from tests.support.volumes import numbered
from unet_models.networks.build import build_network
from unet_models.specs.networks import UNetSpec
from unet_models.specs.segmentation import PredictSpec

LABELS = numbered("background", "left", "right")
REGIONS = LABELS.model_copy(
    update={"regions": (Region(name="whole", classes=(1, 2), written=1), Region(name="core", classes=(2,), written=2))}
)
FIRST = {"patch_size": (16, 16, 16), "preprocess": PreprocessSpec(foreground_crop=True), "spacing": (1.0, 1.0, 1.5)}
SECOND = {"patch_size": (1, 16, 16), "preprocess": PreprocessSpec(), "spacing": (2.0, 1.6, 1.2)}


def model(folder: Path, seed: int, labels: Labels, **settings: Any) -> Segmenter:
    """A network of random weights, whose logits are scaled up: untrained ones are near 0."""
    spec = UNetSpec(channels=(4, 8 + 4 * seed), kernel_size=3, deep_supervision=0)
    bundle = Bundle(model=spec, labels=labels, channels=("image",), mirror_axes=(), predict=PredictSpec(), **settings)
    folder.mkdir()
    write_bundle(folder, bundle)
    torch.manual_seed(seed)
    weights = build_network(spec, 1, labels.num_outputs, 3).state_dict()
    save_file({name: 4 * value if "head" in name else value for name, value in weights.items()}, folder / WEIGHTS)
    return Segmenter.from_folder(folder, device="cpu")


def pair_of(folder: Path, first: Path, second: Path, **changes: Any) -> Segmenter:
    bundle, partner = (read_bundle(each, Bundle) for each in (first, second))
    folder.mkdir()
    write_bundle(folder, bundle.model_copy(update={"partner": partner, **changes}))
    save_file(join_weights(load_file(first / WEIGHTS), partner=load_file(second / WEIGHTS)), folder / WEIGHTS)
    return Segmenter.from_folder(folder, device="cpu")


@pytest.fixture
def image(tmp_path: Path) -> str:
    """Noise in a frame of zeros, which the first model crops away; two axes are stored the other way round."""
    values = np.zeros((20, 14, 12), np.float32)
    values[3:-2, 1:-1, 2:] = np.random.default_rng(0).uniform(20, 90, (15, 12, 10))
    affine = np.array([[0, 0, -0.8, 9], [1.1, 0, 0, 5], [0, -2.0, 0, 1], [0, 0, 0, 1]])
    nib.save(nib.Nifti1Image(values, affine), tmp_path / "image.nii.gz")
    return str(tmp_path / "image.nii.gz")


@pytest.mark.parametrize("labels", [LABELS, REGIONS], ids=["classes", "regions"])
def test_labels_and_maps_are_those_of_the_mean_of_probabilities(tmp_path: Path, image: str, labels: Labels) -> None:
    alone = model(tmp_path / "a", 0, labels, **FIRST), model(tmp_path / "b", 1, labels, **SECOND)
    found = [each.segment_with_maps(read_files(each.bundle, [image]), ("probabilities",)) for each in alone]
    own = [each["probabilities"] for each in found]
    pair = pair_of(tmp_path / "pair", tmp_path / "a", tmp_path / "b")
    ready = read_files(pair.bundle, [image])
    joined = pair.segment_with_maps(ready, ("probabilities", "uncertainty", "disagreement"))
    mean = np.mean(own, axis=0)
    inside = np.zeros(mean.shape[:-1], bool)
    inside[3:-2, 1:-1, 2:] = True  # what the first crops away is background
    np.testing.assert_allclose(joined["probabilities"][inside], mean[inside], atol=1.5 / STEPS)
    if labels.regions:
        want = np.where(mean[..., 1] > 0.5, 2, np.where(mean[..., 0] > 0.5, 1, 0))
    else:
        want = mean.argmax(-1)
        certainty = [1 - entropy(each, axis=-1) / math.log(3) for each in (*own, mean)]
        disagree = (certainty[0] + certainty[1]) / 2 - certainty[2]
        np.testing.assert_allclose(joined["disagreement"][inside], disagree[inside], atol=2e-3)
    close = np.abs(np.sort(mean, -1)[..., -1:] - np.sort(mean, -1)[..., -2:-1])[..., 0] < 4 / STEPS
    close |= (np.abs(mean - 0.5) < 4 / STEPS).any(-1)
    np.testing.assert_array_equal(joined["labels"][inside & ~close], want[inside & ~close])
    assert not joined["labels"][~inside].any()
    assert all((each["labels"] != joined["labels"]).any() for each in found)
    assert len(np.unique(joined["labels"])) > 1


def test_a_pair_is_one_model_with_one_limit_of_memory(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    model(tmp_path / "a", 0, LABELS, **FIRST), model(tmp_path / "b", 1, LABELS, **SECOND)
    pair = pair_of(tmp_path / "pair", tmp_path / "a", tmp_path / "b", temperatures=(2.0, 1.0, 1.0))
    limited = pair.within(2)
    assert limited.partner is not None
    assert limited.partner.bundle.predict.memory_gb == limited.bundle.predict.memory_gb == 2
    assert pair.partner is not None
    assert pair.partner.bundle.predict.memory_gb != 2
    assert pair.bundle.num_networks == 2
    SegmentationExplainer(tmp_path / "pair")
    assert "averages 2 networks" in caplog.text


def test_weights_are_split_as_they_were_joined() -> None:
    first, second = {"a": torch.ones(1), "members.0.b": torch.ones(2)}, {"a": torch.zeros(1)}
    nested = join_weights(second, previous=first)
    joined = join_weights(first, partner=nested, previous=second)
    assert split_weights(joined) == (first, {"partner": nested, "previous": second})
    assert split_weights(nested) == (second, {"partner": {}, "previous": first})
    assert split_weights(first) == (first, {"partner": {}, "previous": {}})
