"""SSIM beside scikit-image's, and the terms of the loss in closed form."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from skimage.metrics import structural_similarity

from unet_models.restoration.losses import image_loss
from unet_models.restoration.similarity import ssim
from unet_models.specs.restoration import RestorationLossSpec


def test_ssim_is_that_of_scikit_image() -> None:
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(2, 3, 23, 17, generator=generator, dtype=torch.float64)
    restored = (images + 0.2 * torch.randn(images.shape, generator=generator, dtype=torch.float64)).clamp(0, 1)
    theirs = [
        structural_similarity(
            one.numpy(), two.numpy(), channel_axis=0, data_range=1, gaussian_weights=True, sigma=1.5,
            use_sample_covariance=False,
        )
        for one, two in zip(restored, images, strict=True)
    ]  # fmt: skip
    np.testing.assert_allclose(ssim(restored, images).numpy(), theirs, atol=1e-9)
    with pytest.raises(ValueError, match="at least 11x11 pixels"):
        ssim(images[..., :10], images[..., :10])


def test_terms_in_closed_form() -> None:
    images, restored = torch.zeros(2, 3, 12, 12), torch.zeros(2, 3, 12, 12)
    restored[1] = 0.5

    def terms(**weights: float) -> list[float]:
        spec = RestorationLossSpec.model_validate({"terms": weights, "charbonnier_epsilon": 0.1})
        return image_loss(restored, images, spec).tolist()

    assert terms(l1=2.0) == [0, 1.0]
    assert terms(l2=1.0) == [0, 0.25]
    assert terms(charbonnier=1.0) == pytest.approx([0, (0.25 + 0.01) ** 0.5 - 0.1])
    # Constant images: 1 - (C1) / (0.25 + C1), with C1 = 1e-4.
    assert terms(ssim=1.0) == pytest.approx([0, 1 - 1e-4 / (0.25 + 1e-4)], abs=1e-5)
    assert terms(l1=1.0, l2=1.0) == [0, 0.75]
