from __future__ import annotations

import math

import pytest

from data_pipelines.errors import ConfigError
from flows.pipelines.segmentation.ablation import mean_over_seeds, skip_variants
from flows.pipelines.segmentation.config import SegmentationConfig


def config(**model: object) -> SegmentationConfig:
    return SegmentationConfig.model_validate({"train": {"model": model}})


def test_variants_differ_in_their_skip_connections_alone() -> None:
    base = config(channels=[4, 8, 16])
    variants = skip_variants(base)
    assert {name: each.train.model.skips for name, each in variants.items()} == {
        "all": ("concat", "concat"),
        "gated": ("gated", "gated"),
        "none": ("none", "none"),
        "level 1 alone": ("concat", "none"),
        "level 2 alone": ("none", "concat"),
    }
    assert len({each.train.model.model_copy(update={"skip": "concat"}) for each in variants.values()}) == 1
    assert list(skip_variants(config(channels=[4, 8]))) == ["all", "gated", "none"], "its one level alone is all"


def test_variants_have_the_kinds_of_the_configuration() -> None:
    variants = skip_variants(config(channels=[4, 8, 16, 32], skip=["add", "gated_coarse", "none"]))
    assert variants["all"].train.model.skips == ("add", "concat", "concat")
    assert variants["gated"].train.model.skips == ("gated_coarse",) * 3
    assert variants["level 1 alone"].train.model.skips == ("add", "none", "none")
    mednext = config(preset="mednext_s")
    assert skip_variants(mednext)["all"] == mednext, "all is the network as configured"


def test_a_decoder_that_needs_its_skips_is_refused() -> None:
    with pytest.raises(ConfigError, match="ablate skips: skip: decoder nested takes concat"):
        skip_variants(config(decoder="nested"))


def test_scores_are_averaged_over_the_seeds() -> None:
    """A value that is missing under one seed is the mean of the others."""

    def row(case: str, dice: float, hd95: float = 1.0) -> dict[str, object]:
        return {"case_id": case, "class_name": "a", "dice": dice, "hd95_mm": hd95, "surface_dice": math.nan}

    found = mean_over_seeds([[row("x", 0.5, 2.0), row("y", math.nan)], [row("x", 0.7, 4.0), row("y", 0.4)]])
    assert [(each["case_id"], each["dice"], each["hd95_mm"]) for each in found] == [
        ("x", pytest.approx(0.6), 3.0),
        ("y", 0.4, 1.0),
    ]
    assert all(math.isnan(each["surface_dice"]) for each in found)
