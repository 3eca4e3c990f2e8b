"""Every shipped configuration parses, and mistakes in one are named by field."""

from __future__ import annotations

from pathlib import Path

import pytest

from data_pipelines.errors import UserError
from flows.config import load_config

CONFIGS = sorted((Path(__file__).resolve().parents[2] / "flows" / "configs").glob("*.yaml"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_shipped_config_parses(path: Path) -> None:
    assert load_config(path).pipeline == "segmentation"


def test_there_are_configs() -> None:
    assert {path.name for path in CONFIGS} >= {"hippocampus.yaml", "hippocampus_gpu.yaml", "demo_segmentation.yaml"}


def test_overrides_win_over_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("train: {num_steps: 5}")
    config = load_config(path, ["train.num_steps=7", "evaluate.tta=false", "data.root=/x"])
    assert (config.train.num_steps, config.evaluate.tta, config.data.root) == (7, False, "/x")


@pytest.mark.parametrize(
    ("override", "named"),
    [
        ("train.num_stepz=7", "train.num_stepz: there is no such field"),
        ("train.num_steps=seven", "train.num_steps"),
        ("train.patch_size=[8, 8]", "one number per spatial axis"),
        ("train", "write it as a.b=value"),
        ("compute.num_workers=64", "every worker needs at least one sample"),
        ("data.preprocess.normalise=window", "go together"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, override: str, named: str) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("{}")
    with pytest.raises(UserError, match=named.replace("(", r"\(")):
        load_config(path, [override])
