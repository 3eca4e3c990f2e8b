"""Encoding: the scaling factor, and the shape of the square's latents."""

from __future__ import annotations

import numpy as np
import pytest

from data_pipelines.errors import DataError
from flows.pipelines.diffusion.encode import class_names, scaling_factor, square_latent_shape


def test_scaling_factor_makes_latents_of_unit_variance() -> None:
    rng = np.random.default_rng(0)
    means, deviations = rng.normal(0.5, 2, (50, 4, 8, 8)), np.exp(rng.normal(-1, 0.3, (50, 4, 8, 8)))
    rows = [
        {"latent_mean": mean.mean(), "latent_square": (mean**2 + deviation**2).mean()}
        for mean, deviation in zip(means, deviations, strict=True)
    ]
    drawn = means + deviations * rng.standard_normal((200, *means.shape))
    assert (drawn * scaling_factor(rows)).std() == pytest.approx(1, rel=1e-3)


def test_latents_of_the_square_from_those_of_any_bucket() -> None:
    assert square_latent_shape({"latent_shape": [4, 48, 80]}, {"bucket": "640x384"}, 512) == (4, 64, 64)
    assert square_latent_shape({"latent_shape": [16, 64, 64]}, {"bucket": "512x512"}, 512) == (16, 64, 64)


def test_classes_are_those_of_the_training_images_in_order() -> None:
    rows = [
        {"case_id": str(i), "class_name": name, "split": split}
        for i, (name, split) in enumerate([("b", "train"), ("a", "train"), ("b", "val")])
    ]
    assert class_names(rows) == ("a", "b")
    assert class_names([row | {"class_name": None} for row in rows]) == ()
    with pytest.raises(DataError, match="its class 'c' has no training image"):
        class_names([*rows, {"case_id": "3", "class_name": "c", "split": "val"}])
