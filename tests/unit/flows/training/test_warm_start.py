"""Warm starts from a champion of another latent space, text space or noise process are refused by name."""

from __future__ import annotations

import logging

import pytest

from data_pipelines.errors import ConfigError
from flows.pipelines.diffusion.train import train_stage
from flows.training import stage
from flows.training.figures import TrainingFigures
from flows.training.warm_start import check_bound
from tests.support.diffusion import LATENTS, diffusion_config
from tests.support.records import finished

TRAINED = TrainingFigures(step=700, run_id=None, num_workers=2)
BOUND = {"encode.clip": "c", "encode.autoencoder": "a", "train.noise.schedule": "cosine"}


@pytest.mark.parametrize("field", BOUND)
def test_what_differs_is_named(field: str) -> None:
    with pytest.raises(ConfigError, match=rf"train\.warm_start: {field} is not what m version 3 was trained with"):
        check_bound("m version 3", BOUND | {field: "other"}, BOUND)


def test_all_that_differs_is_named_and_equals_pass() -> None:
    check_bound("m version 3", BOUND, BOUND)
    check_bound("m version 3", None, {})
    with pytest.raises(ConfigError, match=r"encode\.clip and encode\.autoencoder are not"):
        check_bound("m version 3", BOUND | {"encode.clip": "d", "encode.autoencoder": "b"}, BOUND)


def test_a_champion_that_does_not_say_is_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        check_bound("m version 3", None, BOUND)
    assert "does not say which encode.clip, encode.autoencoder, train.noise.schedule it was made for" in caplog.text


def test_a_noise_predictor_is_bound_to_encoders_and_noise_process(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, object]] = []

    def find(config: object, inputs: object, bound_to: dict[str, object]) -> None:
        asked.append(dict(bound_to))

    monkeypatch.setattr(stage, "find_warm_start", find)
    clips, autoencoders = ([finished(n, TRAINED, **{"model.safetensors": w}) for w in "xy"] for n in ("clip", "vae"))
    model = {"context_dim": 128, "channels": (32, 64), "attention_levels": (False, True)}
    train = {"model": model, "global_batch_size": 12, "warm_start": "champion"}
    config = diffusion_config(train=train)
    linear = diffusion_config(train=train | {"noise": {"schedule": "linear"}})
    latents = finished("encode", LATENTS)
    for each, clip, autoencoder in (
        (config, clips[0], autoencoders[0]),
        (config, clips[1], autoencoders[0]),
        (config, clips[0], autoencoders[1]),
        (linear, clips[0], autoencoders[0]),
    ):
        train_stage(each, latents, clip, autoencoder)
    first = asked[0]
    differing = [[name for name in first if other[name] != first[name]] for other in asked[1:]]
    assert differing == [["encode.clip"], ["encode.autoencoder"], ["train.noise.schedule"]]
