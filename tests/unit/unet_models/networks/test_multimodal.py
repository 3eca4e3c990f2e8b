"""The multimodal U-Net: what it makes of each modality, and of missing ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.signal import stft
from torch import Tensor
from transformers.audio_utils import mel_filter_bank

from tests.support.exports import assert_equal, perturbed, written
from tests.support.gradients import check_gradients, subtracted
from unet_models.formats.trace import trace_unet
from unet_models.networks.build import build_network
from unet_models.networks.multimodal import Conditioned, MultimodalUNet
from unet_models.networks.spectrogram import HOP, WINDOW, LogMel, mel_filters
from unet_models.specs.networks import FusionSpec, UNetSpec

FUSION = FusionSpec(text_bytes=5, sound_seconds=0.05, width=8, num_heads=2, num_mels=8)
NUM_SAMPLES = 800


def network(ndim: int = 2, **fusion: object) -> MultimodalUNet:
    torch.manual_seed(0)
    spec = UNetSpec(channels=(4, 8), fusion=FUSION.model_copy(update=fusion))
    built = build_network(spec, 2, 3, ndim=ndim).eval()
    assert isinstance(built, MultimodalUNet)
    return built


def inputs(batch: int = 2, size: tuple[int, ...] = (8, 8)) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    texts = torch.randint(1, 256, (batch, 5), generator=generator, dtype=torch.uint8)
    sounds = torch.rand(batch, NUM_SAMPLES, generator=generator) - 0.5
    return torch.randn(batch, 2, *size, generator=generator), texts, sounds


def test_spectrogram_is_that_of_scipy() -> None:
    sound = np.random.default_rng(0).normal(size=1200).astype(np.float32)
    _, _, frames = stft(sound, window="hann", nperseg=WINDOW, noverlap=WINDOW - HOP, boundary=None, padded=False)
    power = np.abs(frames * np.hanning(WINDOW + 1)[:-1].sum()) ** 2  # scipy divides by the sum of the window
    wanted = np.log(np.maximum(mel_filters(8, 16_000).numpy() @ power, 1e-6))
    found = LogMel(8, 16_000)(torch.from_numpy(sound)[None])[0]
    np.testing.assert_allclose(found.numpy(), wanted, rtol=1e-3, atol=1e-3)


def test_filters_are_those_of_transformers() -> None:
    wanted = mel_filter_bank(WINDOW // 2 + 1, 8, 0.0, 8000.0, 16_000, norm=None, mel_scale="htk")
    np.testing.assert_allclose(mel_filters(8, 16_000).numpy(), wanted.T, atol=1e-6)


@pytest.mark.parametrize(("ndim", "size"), [(2, (8, 8)), (2, (9, 7)), (3, (8, 4, 5))])
def test_shapes_of_images_stay(ndim: int, size: tuple[int, ...]) -> None:
    assert network(ndim)(*inputs(size=size)).shape == (2, 3, *size)


def test_every_parameter_gets_a_gradient() -> None:
    """With a sample that has everything and one that has nothing, all learned vectors take part."""
    built = perturbed(network())
    images, texts, sounds = inputs()
    images[1], texts[1], sounds[1] = torch.nan, 0, torch.nan
    # Spectrograms are computed in float32.
    check_gradients(built, [images, texts, sounds], subtracted(UNetSpec(), built), torch.float32)


@pytest.mark.parametrize("missing", [0, 1, 2])
def test_a_missing_modality_does_not_matter_and_a_present_one_does(missing: int) -> None:
    built, given = network(), list(inputs())
    torch.nn.init.normal_(built.fusion.no_text)  # type: ignore[arg-type]
    marks = torch.nan, 0, torch.nan
    hidden = [each.clone() for each in given]
    hidden[missing][1] = marks[missing]
    both = built(*hidden)
    torch.testing.assert_close(both[0], built(*given)[0])
    assert not torch.allclose(both[1], built(*given)[1], atol=1e-4)
    changed = [each.clone() for each in given]
    changed[missing][1] = changed[missing][1].flip(-1)
    assert not torch.allclose(built(*changed)[1], built(*given)[1], atol=1e-5)


def test_no_text_at_all_is_one_that_is_missing() -> None:
    built = network()
    images, texts, sounds = inputs()
    torch.testing.assert_close(built(images, None, sounds), built(images, torch.zeros_like(texts), sounds))
    torch.testing.assert_close(built(images, texts), built(images, texts, torch.full_like(sounds, torch.nan)))


def test_one_case_goes_with_all_of_its_windows() -> None:
    built = network()
    images, texts, sounds = inputs()
    one = Conditioned(built, texts[:1], sounds[:1])
    torch.testing.assert_close(one(images)[1:], built(images[1:], texts[:1], sounds[:1]))
    blind = Conditioned(built, texts[:1], sounds[:1], has_image=False)
    torch.testing.assert_close(blind(images), blind(torch.zeros_like(images)))


def test_files_compute_what_the_network_does(tmp_path: Path) -> None:
    """Of three samples each lacks another modality."""
    built = perturbed(network())
    named = dict(zip(("images", "texts", "sounds"), inputs(batch=3), strict=True))
    named["images"][0], named["texts"][1], named["sounds"][2] = torch.nan, 0, torch.nan
    assert_equal(written(trace_unet(built, 2, 3), tmp_path), built, named)


@pytest.mark.parametrize("fusion", [{"sound_seconds": 0}, {"text_bytes": 0}])
def test_one_further_modality_is_enough(fusion: dict[str, object]) -> None:
    built = network(**fusion)
    named = dict(zip(("images", "texts", "sounds"), inputs(), strict=True))
    assert built(**{name: named[name] for name in ("images", *built.fusion.lengths)}).shape == (2, 3, 8, 8)


def test_nothing_to_fuse_is_refused() -> None:
    with pytest.raises(ValueError, match="set text_bytes or sound_seconds above 0"):
        FusionSpec(text_bytes=0, sound_seconds=0)
    with pytest.raises(ValueError, match=r"num_heads \(4\) must divide the last of channels \(6\)"):
        UNetSpec(channels=(4, 6), fusion=FusionSpec())
