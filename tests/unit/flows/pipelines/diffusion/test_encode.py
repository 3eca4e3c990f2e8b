"""Encoding: the scaling factor, and the shape of the square's latents."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from data_pipelines.errors import ConfigError, DataError
from data_pipelines.shards.index import write_table
from flows.pipelines.diffusion.encode import (
    FORMAT,
    LatentFigures,
    check_classes,
    choose_factor,
    class_names,
    encode_stage,
    log_stated_factor,
    scaling_factor,
    square_latent_shape,
)
from flows.stages.stage import Stage
from flows.training.figures import TrainingFigures
from tests.support.diffusion import SHARDS, diffusion_config
from tests.support.records import finished


def test_scaling_factor_makes_latents_of_unit_variance() -> None:
    rng = np.random.default_rng(0)
    means, deviations = rng.normal(0.5, 2, (50, 4, 8, 8)), np.exp(rng.normal(-1, 0.3, (50, 4, 8, 8)))
    rows = [
        {"latent_mean": mean.mean(), "latent_square": (mean**2 + deviation**2).mean()}
        for mean, deviation in zip(means, deviations, strict=True)
    ]
    drawn = means + deviations * rng.standard_normal((200, *means.shape))
    assert (drawn * scaling_factor(rows)).std() == pytest.approx(1, rel=1e-3)


def test_a_configured_scaling_factor_is_used_and_the_measured_one_is_kept(caplog: pytest.LogCaptureFixture) -> None:
    assert choose_factor(None, 0.25) == {"scaling_factor": 0.25, "measured_scaling_factor": 0.25}
    assert choose_factor(0.18215, 0.19) == {"scaling_factor": 0.18215, "measured_scaling_factor": 0.19}
    assert not caplog.records
    assert choose_factor(0.18215, 0.25) == {"scaling_factor": 0.18215, "measured_scaling_factor": 0.25}
    assert "encode.scaling_factor is 0.18215, the one measured on the training images is 0.25" in caplog.text


def test_what_a_given_autoencoder_states_is_compared(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        log_stated_factor(0.18215, 0.19)
        assert not caplog.records
        log_stated_factor(0.18215, 0.25)
    assert "set encode.scaling_factor=0.18215" in caplog.text


def test_a_scaling_factor_changes_the_key_where_it_is_set() -> None:
    networks = [
        finished(name, TrainingFigures(step=1, run_id=None, num_workers=1), **{"config.json": name})
        for name in ("train_clip", "train_autoencoder")
    ]
    shards = finished("shard", SHARDS)

    def stage(**encode: object) -> str:
        return encode_stage(diffusion_config(encode=encode), shards, *networks).key

    identity = {"precision": "fp32", "format": FORMAT}  # keys of before there was the field
    unset = Stage("encode", identity, (shards, *networks), lambda _: pytest.fail("encodes"), LatentFigures)
    assert stage() == unset.key
    assert len({stage(), stage(scaling_factor=0.18215), stage(scaling_factor=0.13025)}) == 3


def test_latents_of_the_square_from_those_of_any_bucket() -> None:
    assert square_latent_shape({"latent_shape": [4, 48, 80]}, {"bucket": "640x384"}, 512) == (4, 64, 64)
    assert square_latent_shape({"latent_shape": [16, 64, 64]}, {"bucket": "512x512"}, 512) == (16, 64, 64)


def test_classes_are_those_of_the_training_images_in_order() -> None:
    rows = [
        {"case_id": str(i), "class_name": name, "split": split}
        for i, (name, split) in enumerate([("b", "train"), ("a", "train"), ("b", "val")])
    ]
    assert class_names(rows) == (("a", "b"), {})
    assert class_names([row | {"class_name": None} for row in rows]) == ((), {})
    assert class_names([*rows, {"case_id": "3", "class_name": "c", "split": "val"}]) == (("a", "b"), {"c": "3"})


def test_classes_are_checked_before_anything_is_trained(tmp_path: Path) -> None:
    rows = [("0", "b", "train"), ("1", "a", "train"), ("2", "b", "val")]

    def check(number: int | None, *more: tuple[str, str, str]) -> None:
        columns = dict(zip(("case_id", "class_name", "split"), zip(*rows, *more, strict=True), strict=True))
        write_table(str(tmp_path / "index.parquet"), pa.table(columns))
        data = {"layout": "shapes", "class_from": "shape"}
        config = diffusion_config(data=data, train={"model": {"context_dim": 128, "num_class_embeds": number}})
        check_classes(config, finished("shard", SHARDS, index=str(tmp_path / "index.parquet")))

    check(3)
    with pytest.raises(
        ConfigError, match=r"num_class_embeds \(4\) must be 3: the training images have 2 classes \(a, b"
    ):
        check(4)
    with pytest.raises(DataError, match="its class 'c' has no training image") as caught:
        check(3, ("3", "c", "val"))
    assert "quarantine" not in str(caught.value), "no image is left out of what is drawn by class"
    check(None, ("3", "c", "val"))
