"""Inception features: resizing as in TensorFlow 1, normalisation, and what a file of weights must be."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from data_pipelines.errors import WeightsError
from unet_models.metrics.inception import (
    WEIGHTS_FILE,
    WEIGHTS_SHA256,
    inception_features,
    load_inception,
    resize_tf1_bilinear,
)
from unet_models.networks.inception import FIDInception


def digest_of(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def random_images(*shape: int, seed: int = 0) -> Tensor:
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


# --- Resizing --------------------------------------------------------------------------------------------------------


def test_enlarging_worked_out_by_hand():
    image = torch.tensor([[0, 40], [80, 200]], dtype=torch.uint8)[None, None]
    # Positions 0, 1/2, 1, 3/2; beyond the last pixel it is repeated.
    expected = [[0.0, 20, 40, 40], [40, 80, 120, 120], [80, 140, 200, 200], [80, 140, 200, 200]]
    assert resize_tf1_bilinear(image, (4, 4))[0, 0].tolist() == expected


def test_shrinking_takes_pixels_without_smoothing():
    image = torch.arange(48, dtype=torch.uint8).view(1, 1, 6, 8)
    assert resize_tf1_bilinear(image, (3, 2))[0, 0].tolist() == [[0, 4], [16, 20], [32, 36]]


def test_height_and_width_are_resized_apart_and_not_rounded():
    image = torch.tensor([[0, 3, 9]], dtype=torch.uint8)[None, None]
    resized = resize_tf1_bilinear(image, (2, 4))[0, 0]  # positions 0, 3/4, 3/2, 9/4
    torch.testing.assert_close(resized, torch.tensor([[0, 2.25, 6, 9]] * 2))


def test_images_of_the_size_wanted_are_left_as_they_are():
    images = random_images(2, 3, 299, 299)
    assert torch.equal(resize_tf1_bilinear(images, (299, 299)), images.float())


# --- Features --------------------------------------------------------------------------------------------------------


def test_features_are_the_networks_of_resized_and_normalised_images(inception: FIDInception):
    images = random_images(2, 3, 32, 40)
    features = inception_features(inception, images)
    assert features.shape == (2, 2048)
    assert features.dtype == torch.float32
    assert not torch.allclose(features[0], features[1], rtol=1e-2)
    inputs = resize_tf1_bilinear(images, (299, 299)) / 128 - 1
    torch.testing.assert_close(features, inception(inputs), rtol=1e-3, atol=1e-4)


def test_features_are_the_mean_of_the_last_map(inception: FIDInception):
    seen: list[Tensor] = []
    hook = inception.Mixed_7c.register_forward_hook(lambda _m, _x, y: seen.append(y))
    features = inception_features(inception, random_images(1, 3, 50, 50))
    hook.remove()
    torch.testing.assert_close(features, seen[0].flatten(2).sum(dim=2) / 64)


def test_autocast_does_not_reach_the_features(inception: FIDInception):
    images = random_images(1, 3, 32, 32)
    expected = inception_features(inception, images)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(inception_features(inception, images), expected)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (torch.zeros(1, 3, 8, 8), r"must be uint8 .* got torch.float32"),
        (torch.zeros(1, 1, 8, 8, dtype=torch.uint8), r"\(1, 1, 8, 8\); repeat a grey channel"),
        (torch.zeros(3, 8, 8, dtype=torch.uint8), r"got torch.uint8 of shape \(3, 8, 8\)"),
    ],
)
def test_bad_images_are_refused(inception: FIDInception, images: Tensor, message: str):
    with pytest.raises(ValueError, match=message):
        inception_features(inception, images)


def test_network_in_training_mode_is_refused(inception: FIDInception):
    inception.train()
    try:
        with pytest.raises(ValueError, match=r"call network.eval\(\)"):
            inception_features(inception, random_images(1, 3, 8, 8))
    finally:
        inception.eval()


# --- The file --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [WEIGHTS_FILE, "weights.safetensors"])
def test_file_round_trip(inception: FIDInception, tmp_path: Path, name: str):
    path = tmp_path / name
    # Files older than the counters do not hold them.
    tensors = {k: v for k, v in inception.state_dict().items() if not k.endswith("num_batches_tracked")}
    if path.suffix == ".safetensors":
        save_file(tensors, path)
    else:
        torch.save(tensors, path)
    generator = torch.get_rng_state()
    for sha256 in (digest_of(path), digest_of(path)[:8].upper()):
        loaded = load_inception(path, sha256)
    assert torch.equal(torch.get_rng_state(), generator)
    for key, tensor in inception.state_dict().items():
        assert torch.equal(loaded.state_dict()[key], tensor), key
    assert not loaded.training
    assert not any(parameter.requires_grad for parameter in loaded.parameters())


def test_file_is_the_published_one_by_default(inception: FIDInception, tmp_path: Path):
    path = tmp_path / WEIGHTS_FILE
    torch.save(inception.state_dict(), path)
    assert WEIGHTS_SHA256[:8] in WEIGHTS_FILE
    with pytest.raises(
        WeightsError, match=f"must begin with 6726825d0af5f729, got {digest_of(path)[:16]}; download pt_"
    ):
        load_inception(path)


def test_missing_file_says_what_to_fetch_from_where_to_where(tmp_path: Path):
    with pytest.raises(WeightsError) as caught:
        load_inception(tmp_path / "weights.pth")
    for part in ("no such file", WEIGHTS_FILE, "mseitzer/pytorch-fid", f"put it into {tmp_path}"):
        assert part in str(caught.value)


def test_digest_too_short_to_tell_is_refused(tmp_path: Path):
    with pytest.raises(ValueError, match="first 8 digits, got ''"):
        load_inception(tmp_path / "weights.pth", "")


def test_other_tensors_are_refused(inception: FIDInception, tmp_path: Path):
    path = tmp_path / "weights.pth"
    tensors = dict(inception.state_dict())
    wrong = {
        r"1 missing \['fc.bias'\], 0 unknown": {k: v for k, v in tensors.items() if k != "fc.bias"},
        r"0 missing \[\], 1 unknown \['AuxLogits.fc.bias'\]": tensors | {"AuxLogits.fc.bias": torch.zeros(1000)},
        "other shapes.*fc.bias": tensors | {"fc.bias": torch.zeros(1000)},
        "must hold a dict of tensors, got list": [torch.zeros(1)],
    }
    for message, content in wrong.items():
        torch.save(content, path)
        with pytest.raises(WeightsError, match=f"(?s){message}"):
            load_inception(path, digest_of(path))


@pytest.mark.parametrize("name", ["weights.pth", "weights.safetensors"])
def test_unreadable_file_is_refused(tmp_path: Path, name: str):
    path = tmp_path / name
    path.write_bytes(b"not tensors at all")
    with pytest.raises(WeightsError, match="not a readable file of tensors"):
        load_inception(path, digest_of(path))


class _Touch:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.path,)


def test_pickled_code_is_not_run(tmp_path: Path):
    path, touched = tmp_path / "weights.pth", tmp_path / "touched"
    torch.save({"fc.bias": _Touch(touched)}, path)
    with pytest.raises(WeightsError, match="not a readable file of tensors"):
        load_inception(path, digest_of(path))
    assert not touched.exists()
