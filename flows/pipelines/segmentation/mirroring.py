"""Test-time mirroring where it pays: held-out cases predicted with it and without, and the choice between the two."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from pydantic import ConfigDict

from data_pipelines.specs import Spec
from unet_models.metrics.summary import mean_of_class_means, score_table

MIN_DICE_GAIN = 1e-3
"""Rise of the mean Dice from which mirroring, or a pair, is kept, since it takes a multiple of the time: a tenth of a
percent point."""

Folder = tuple[str, ...]
"""Parts of a path below an attempt's folder: of none for the predictions that are tried first, or alone."""


class Variant(Spec):
    """Predictions of the held-out cases, with or without test-time mirroring."""

    model_config = ConfigDict(ser_json_inf_nan="strings")  # a record takes no constants

    tta: bool
    dice: float
    """Mean over the cases, then over the targets; NaN where no case has any."""
    seconds: float
    """Median time of the prediction of a case."""
    predictions: str = ""
    """Folder of its label maps, relative to the stage's folder; empty where they lie in several."""


def variant_output(name: str, *, tta: bool) -> str:
    """Name an output of predictions with or without mirroring."""
    return f"{name}_{'mirrored' if tta else 'plain'}"


def tried_variants(tta: bool | Literal["auto"], mirror_axes: Sequence[int]) -> dict[bool, Folder]:
    """Return with and without mirroring, as far as they are to be tried, and the folder of each."""
    if tta != "auto":
        return {tta: ()}
    return {True: (), False: ("plain",)} if mirror_axes else {False: ()}  # there is no choice without axes


def measure_variant(
    tta: bool, rows: Sequence[dict[str, Any]], seconds: Sequence[float], predictions: str = ""
) -> Variant:
    """Measure a variant by its rows of ``cases.parquet``, and the time of each case."""
    names = list(dict.fromkeys(row["class_name"] for row in rows))
    table = score_table(rows, names, "dice")
    dice = float(mean_of_class_means(np.ones((1, len(table))), table)[0])
    return Variant(tta=tta, dice=dice, seconds=statistics.median(seconds), predictions=predictions)


def choose_variant(variants: Sequence[Variant]) -> Variant:
    """Choose mirroring where it raises the mean Dice by ``MIN_DICE_GAIN``; one variant alone is chosen."""
    plain = next((each for each in variants if not each.tta), None)
    mirrored = next((each for each in variants if each.tta), None)
    if plain is None or mirrored is None:
        return variants[0]
    return mirrored if _or_zero(mirrored.dice) >= _or_zero(plain.dice) + MIN_DICE_GAIN else plain


def _or_zero(dice: float) -> float:
    return 0.0 if math.isnan(dice) else dice
