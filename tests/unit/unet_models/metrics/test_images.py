"""Metrics of restored images beside scikit-image's, in regions, and in closed form."""

from __future__ import annotations

import math
import subprocess
import sys

import numpy as np
import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from unet_models.metrics.images import MAX_PSNR, colourfulness, psnr, similarity
from unet_models.restoration import similarity as ssim


@pytest.fixture(scope="module")
def pair() -> tuple[torch.Tensor, torch.Tensor]:
    """A restored and a true image (3, 25, 31)."""
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(3, 25, 31, generator=generator)
    return (image + 0.1 * torch.randn(image.shape, generator=generator)).clamp(0, 1), image


def test_psnr_and_ssim_are_those_of_scikit_image(pair: tuple[torch.Tensor, torch.Tensor]) -> None:
    restored, image = (each.double().numpy() for each in pair)
    assert psnr(*pair) == pytest.approx(peak_signal_noise_ratio(image, restored, data_range=1), abs=1e-6)
    options = {"channel_axis": 0, "data_range": 1, "gaussian_weights": True, "sigma": 1.5}
    mean, whole = structural_similarity(image, restored, use_sample_covariance=False, full=True, **options)
    assert similarity(*pair) == pytest.approx(mean, abs=1e-6)
    hole = torch.zeros(1, 25, 31)
    hole[:, 2:14, 10:20] = 1
    inside = hole[0, 5:-5, 5:-5].numpy() > 0
    assert similarity(*pair, hole) == pytest.approx(whole[:, 5:-5, 5:-5].mean(axis=0)[inside].mean(), abs=1e-6)


@pytest.mark.parametrize("height", [26, 27, 42, 43, 61])  # of 16 windows, one more, 32, one more, 51
def test_ssim_in_strips_is_that_of_the_whole(height: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ssim, "STRIP_PIXELS", 16 * 47)
    generator = torch.Generator().manual_seed(1)
    image = torch.rand(3, height, 47, generator=generator)
    restored = (image + 0.2 * torch.randn(image.shape, generator=generator)).clamp(0, 1)
    strips = list(ssim.iter_ssim_strips(restored, image))
    assert [len(strip) for _, strip in strips[:-1]] == [16] * (len(strips) - 1)
    assert sum(len(strip) for _, strip in strips) == height - 10
    _, whole = structural_similarity(
        image.double().numpy(), restored.double().numpy(), channel_axis=0, data_range=1, gaussian_weights=True,
        sigma=1.5, use_sample_covariance=False, full=True,
    )  # fmt: skip
    expected = whole[:, 5:-5, 5:-5].mean(axis=0)
    assert similarity(restored, image) == pytest.approx(expected.mean(), abs=1e-9)
    region = (torch.rand(1, height, 47, generator=generator) > 0.7).float()
    inside = region[0, 5:-5, 5:-5].numpy() > 0
    assert similarity(restored, image, region) == pytest.approx(expected[inside].mean(), abs=1e-9)
    assert math.isnan(similarity(restored, image, torch.zeros_like(region)))


def test_ssim_of_a_photo_takes_little_memory() -> None:
    program = """
import torch
from unet_models.metrics.images import similarity
def peak(): return int(next(l for l in open("/proc/self/status") if l.startswith("VmHWM")).split()[1]) / 1024
torch.set_num_threads(1)
image = torch.rand(3, 2000, 2000)
before = peak()
similarity(image, image.flip(0))
print(peak() - before)
"""
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert float(found.stdout) < 500  # MB; 1.6 GB per megapixel by float64 convolutions


def test_inside_a_region(pair: tuple[torch.Tensor, torch.Tensor]) -> None:
    _, image = pair
    restored, hole = image.clone(), torch.zeros(1, 25, 31)
    hole[:, 3:9, 4:11] = 1
    restored[:, 3:9, 4:11] = image[:, 3:9, 4:11] - 0.1
    assert psnr(restored, image, hole) == pytest.approx(20, abs=1e-4)  # -10 log10(0.1^2)
    assert psnr(restored, image) == pytest.approx(20 - 10 * math.log10(42 / (25 * 31)), abs=1e-4)
    assert psnr(restored, image, 1 - hole) == MAX_PSNR == psnr(image, image)
    assert math.isnan(psnr(restored, image, torch.zeros_like(hole)))
    assert math.isnan(similarity(restored[:, :8], image[:, :8]))


def test_colourfulness_in_closed_form() -> None:
    assert colourfulness(torch.full((3, 4, 4), 0.5)) == 0
    red = torch.zeros(3, 2, 2)
    red[0] = 1
    # No spread; the means of rg and yb are 255 and 127.5: 0.3 * sqrt(255^2 + 127.5^2).
    assert colourfulness(red) == pytest.approx(0.3 * math.hypot(255, 127.5))
    half = red.clone()
    half[0, 0] = 0
    spread, strength = math.hypot(127.5, 63.75), math.hypot(127.5, 63.75)
    assert colourfulness(half) == pytest.approx(spread + 0.3 * strength)
    assert np.isfinite(colourfulness(torch.rand(3, 5, 5)))
