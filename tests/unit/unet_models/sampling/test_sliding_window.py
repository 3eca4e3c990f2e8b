"""Sliding-window prediction: nothing is lost, nothing is moved, and it agrees with MONAI's where conventions do."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.data.utils import compute_importance_map
from monai.inferers import sliding_window_inference
from torch import Tensor, nn

from unet_models.metrics import overlap
from unet_models.sampling.sliding_window import (
    WEIGHTINGS,
    gaussian_window,
    iter_windows,
    nnunet_window,
    predict_logits,
    predict_planes,
)
from unet_models.sampling.sweep import Sweep
from unet_models.specs.segmentation import PredictSpec

CPU = torch.device("cpu")


def random_image(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


class Recorded(nn.Module):
    """A model that remembers the shapes it was given."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.shapes: list[tuple[int, ...]] = []

    def forward(self, x: Tensor) -> Tensor:
        self.shapes.append(tuple(x.shape))
        return self.model(x)


# --- Windows ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "patch", "overlap", "starts"),
    [
        (10, 4, 0.5, [0, 2, 4, 6]),
        (9, 4, 0.5, [0, 2, 3, 5]),
        (4, 4, 0.5, [0]),
        (5, 4, 0.5, [0, 1]),
        (12, 4, 0.0, [0, 4, 8]),
        (13, 4, 0.0, [0, 3, 6, 9]),
        (8, 4, 0.9, [0, 1, 2, 3, 4]),
        (10, 5, 0.5, [0, 2, 5]),  # 2.5 apart on average
    ],
)
def test_window_literals(size: int, patch: int, overlap: float, starts: list[int]) -> None:
    windows = list(iter_windows((size,), (patch,), overlap))
    assert windows == [(slice(start, start + patch),) for start in starts]


@given(
    axes=st.lists(st.tuples(st.integers(1, 8), st.integers(0, 14)), min_size=2, max_size=3),
    overlap=st.sampled_from([0.0, 0.25, 0.5, 0.75]),
)
@settings(deadline=None)
def test_windows_cover_everything_and_overlap_enough(axes: list[tuple[int, int]], overlap: float) -> None:
    patch, size = zip(*((p, p + extra) for p, extra in axes), strict=True)
    covered = np.zeros(size, int)
    windows = list(iter_windows(size, patch, overlap))
    for window in windows:
        assert covered[window].shape == patch
        covered[window] += 1
    assert covered.min() >= 1
    for axis, (n, p) in enumerate(zip(size, patch, strict=True)):
        starts = sorted({window[axis].start for window in windows})
        assert starts[0] == 0
        assert starts[-1] == n - p
        assert all(b - a <= math.ceil(max(p * (1 - overlap), 1)) for a, b in itertools.pairwise(starts))


# --- Weights ---------------------------------------------------------------------------------------------------------


def test_weights_are_a_gaussian_of_an_eighth() -> None:
    window = gaussian_window((8, 5), CPU)
    rows = np.exp(-0.5 * (np.arange(8) - 3.5) ** 2)
    columns = np.exp(-0.5 * ((np.arange(5) - 2) / 0.625) ** 2)
    expected = np.outer(rows, columns) / rows.max()
    np.testing.assert_allclose(window, np.maximum(expected, 1e-4), rtol=1e-5)


@pytest.mark.parametrize("patch", [(8, 8), (7, 12), (6, 8, 10)])
def test_weights_are_those_of_monai_above_its_floor(patch: tuple[int, ...]) -> None:
    theirs = compute_importance_map(patch, mode="gaussian", sigma_scale=0.125, device=CPU)
    theirs = theirs / theirs.max()
    above = theirs > theirs.min() * 1.001
    assert above.sum() > 10
    torch.testing.assert_close(gaussian_window(patch, CPU)[above], theirs[above])


def test_weights_of_nnunet_peak_beyond_the_middle_in_half_precision() -> None:
    window = nnunet_window((8, 5), CPU)
    assert torch.equal(window, window.half().float())
    assert window[4, 2] == window.max() == 10
    assert window[3, 2] == window[5, 2] == torch.tensor(10 * np.exp(-0.5)).half()
    corner = nnunet_window((64, 64, 64), CPU)[0, 0, 0]
    assert corner == 2.0**-24, "what half precision makes 0 is its smallest number"


def test_settings_choose_the_weights() -> None:
    """Two windows that disagree: where they weigh alike, the mean is 0.5."""

    class Position(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.amax(dim=(2, 3), keepdim=True).expand(x.shape)

    image = torch.zeros(1, 4, 12)
    image[..., 11] = 1
    means = [predict_logits(Position(), image, (4, 8), PredictSpec(weighting=name, tta=False)) for name in WEIGHTINGS]
    torch.testing.assert_close(means[0][0, 0, 5:7].sum(), torch.tensor(1.0))
    assert means[1][0, 0, 6] == 0.5


# --- Prediction ------------------------------------------------------------------------------------------------------


@given(
    axes=st.lists(st.tuples(st.integers(1, 6), st.integers(1, 11)), min_size=2, max_size=3),
    overlap=st.sampled_from([0.0, 0.3, 0.5]),
    tta=st.booleans(),
    batch_size=st.integers(1, 9),
)
@settings(max_examples=50, deadline=None)
def test_a_model_that_returns_its_input_gives_the_image_back(
    axes: list[tuple[int, int]], overlap: float, tta: bool, batch_size: int
) -> None:
    patch, size = zip(*axes, strict=True)
    image = random_image(2, *size)
    model = Recorded(nn.Identity())
    got = predict_logits(model, image, patch, PredictSpec(overlap=overlap, tta=tta, batch_size=batch_size), (0, 1))
    torch.testing.assert_close(got, image, rtol=1e-5, atol=1e-6)
    assert all(shape[0] <= batch_size and shape[1:] == (2, *patch) for shape in model.shapes)


def random_conv(ndim: int) -> nn.Module:
    torch.manual_seed(0)
    conv = {2: nn.Conv2d, 3: nn.Conv3d}[ndim]
    return nn.Sequential(conv(2, 4, 3, padding=1), nn.Tanh(), conv(4, 3, 3, padding=1)).eval()


@pytest.mark.parametrize(
    ("size", "patch", "overlap"),
    [
        ((16, 24), (8, 8), 0.5),
        ((14, 14), (8, 6), 0.25),  # 8 + 6 and 6 + 4 + 4: MONAI moves a last window inwards, we space all evenly
        ((5, 20), (8, 8), 0.5),  # smaller than the window: padded on both sides
        ((3, 6), (8, 9), 0.5),
        ((12, 16, 8), (6, 8, 8), 0.5),
    ],
)
def test_prediction_is_that_of_monai(size: tuple[int, ...], patch: tuple[int, ...], overlap: float) -> None:
    model, image = random_conv(len(size)), random_image(2, *size)
    with torch.inference_mode():
        theirs = sliding_window_inference(
            image[None],
            patch,
            sw_batch_size=4,
            predictor=model,
            overlap=overlap,
            roi_weight_map=gaussian_window(patch, CPU),  # MONAI's own has a higher floor
        )[0]
    ours = predict_logits(model, image, patch, PredictSpec(overlap=overlap, tta=False))
    assert ours.shape == (3, *size)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_forward_passes_of_any_size_agree() -> None:
    model, image = random_conv(3), random_image(2, 9, 10, 7)
    results = [predict_logits(model, image, (6, 6, 6), PredictSpec(batch_size=n), (0, 1, 2)) for n in (1, 3, 8)]
    for result in results[1:]:
        torch.testing.assert_close(result, results[0], rtol=1e-5, atol=1e-6)


class Blur(nn.Module):
    """Means over 3 voxels along each axis: commutes with every mirror."""

    def forward(self, x: Tensor) -> Tensor:
        pool = F.avg_pool2d if x.ndim == 4 else F.avg_pool3d
        return pool(x, 3, stride=1, padding=1)


@pytest.mark.parametrize("size", [(11, 13), (7, 9, 8)])
def test_mirrors_of_an_equivariant_model_change_nothing(size: tuple[int, ...]) -> None:
    image, patch = random_image(1, *size), (6, 5, 4)[: len(size)]
    axes = range(len(size))
    plain, mirrored = (predict_logits(Blur(), image, patch, PredictSpec(tta=tta), axes) for tta in (False, True))
    torch.testing.assert_close(mirrored, plain, rtol=1e-5, atol=1e-6)


class Ramp(nn.Module):
    """Says where in the window a voxel lies along the last axis, whatever is there."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.arange(x.shape[-1], dtype=x.dtype).expand(x.shape)


def test_mirrors_are_undone_before_they_are_averaged() -> None:
    image = torch.zeros(1, 4, 6)
    plain = predict_logits(Ramp(), image, (4, 6), PredictSpec(tta=False), (0, 1))
    torch.testing.assert_close(plain[0], torch.arange(6.0).expand(4, 6))
    mirrored = predict_logits(Ramp(), image, (4, 6), PredictSpec(tta=True), (0, 1))
    torch.testing.assert_close(mirrored[0], torch.full((4, 6), 2.5))


@pytest.mark.parametrize("axes", [(), (0,)])
def test_a_model_that_tells_left_from_right_is_mirrored_along_other_axes_only(axes: tuple[int, ...]) -> None:
    got = predict_logits(Ramp(), torch.zeros(1, 4, 6), (4, 6), PredictSpec(tta=True), axes)
    torch.testing.assert_close(got[0], torch.arange(6.0).expand(4, 6))


class TwoSides(nn.Module):
    """Tells two organs apart by their side alone: bright voxels are class 1 on the left, class 2 on the right."""

    def forward(self, x: Tensor) -> Tensor:
        is_left = (torch.arange(x.shape[-1]) < x.shape[-1] // 2).expand(x.shape)
        bright = (x - 0.5).clamp_min(0)
        return torch.cat([torch.full_like(x, 0.1), bright * is_left, bright * ~is_left], dim=1)


@pytest.mark.parametrize(("axes", "dice"), [((), 1.0), ((0,), 1.0), ((1,), 0.5), ((0, 1), 0.5)])
def test_organs_that_differ_by_their_side_alone(axes: tuple[int, ...], dice: float) -> None:
    """Mirrored copies vote for the other side: all becomes one organ, half of it the wrong one."""
    image = torch.zeros(1, 12, 16)
    image[0, 3:9, 2:6] = image[0, 3:9, 10:14] = 1
    truth = np.zeros((12, 16), int)
    truth[3:9, 2:6], truth[3:9, 10:14] = 1, 2
    logits = predict_logits(TwoSides(), image, (12, 16), PredictSpec(tta=True), axes)
    scores = overlap.dice(overlap.confusion_matrix(logits.argmax(0).numpy(), truth, 3))[1:]
    assert np.mean(scores) <= dice
    assert (np.mean(scores) == 1) == (dice == 1)


@pytest.mark.parametrize("ndim", [2, 3])
def test_every_mirror_is_asked_once(ndim: int) -> None:
    model = Recorded(nn.Identity())
    predict_logits(model, torch.zeros(1, *[4] * ndim), (4,) * ndim, PredictSpec(batch_size=1), range(ndim))
    assert len(model.shapes) == 2**ndim


def test_low_precision_logits_are_averaged_in_float32() -> None:
    thirds = (torch.arange(6) / 3).bfloat16()

    class Low(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return thirds.expand(x.shape)

    got = predict_logits(Low(), torch.zeros(1, 4, 6), (4, 6), PredictSpec(), (0, 1))
    assert got.dtype == torch.float32
    expected = (thirds.double() + thirds.flip(0).double()) / 2  # has more digits than bfloat16
    torch.testing.assert_close(got[0], expected.float().expand(4, 6), rtol=1e-6, atol=1e-6)


def test_number_of_classes_is_the_models() -> None:
    def three(x: Tensor) -> Any:
        return torch.cat([x, 2 * x, 3 * x], dim=1)

    class Three(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return three(x)

    image = random_image(1, 7, 6)
    got = predict_logits(Three(), image, (4, 4), PredictSpec())
    torch.testing.assert_close(got, three(image[None])[0], rtol=1e-5, atol=1e-6)


# --- Plane by plane ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "patch"), [((13, 9, 7), (4, 6, 5)), ((5, 16, 3), (8, 4, 4)), ((11, 17), (4, 6)), ((3, 20), (4, 7))]
)
@pytest.mark.parametrize("overlap", [0.0, 0.5, 0.75])
def test_planes_along_any_axis_and_in_any_box_are_those_of_the_whole(
    size: tuple[int, ...], patch: tuple[int, ...], overlap: float
) -> None:
    model, image = random_conv(len(size)), random_image(2, *size)
    spec = PredictSpec(overlap=overlap, tta=False)
    whole = predict_logits(model, image, patch, spec)
    box = tuple(slice(n // 4, n - n // 3) for n in size)
    for axis in range(len(size)):
        planes = predict_planes(model, image, patch, spec, sweep=Sweep(axis))
        torch.testing.assert_close(torch.stack(list(planes), 1 + axis), whole, rtol=1e-5, atol=1e-5)
        planes = predict_planes(model, image, patch, spec, sweep=Sweep(axis), box=box)
        expected = whole[(slice(None), *box)]
        torch.testing.assert_close(torch.stack(list(planes), 1 + axis), expected, rtol=1e-5, atol=1e-5)


def test_a_pass_holds_no_more_windows_than_the_sweep_allows() -> None:
    model = Recorded(nn.Identity())
    image = torch.zeros(1, 4, 4)
    list(predict_planes(model, image, (4, 4), PredictSpec(batch_size=4), (0, 1), sweep=Sweep(batch_size=1)))
    assert [shape[0] for shape in model.shapes] == [1, 1, 1, 1]
